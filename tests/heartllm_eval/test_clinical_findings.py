"""What the lexicon reads in a report: phrases, territories, denial, doubt; English, machine statements, German."""

from __future__ import annotations

import random
import re
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from heartllm.data.statements import STATEMENTS
from heartllm.errors import UsageError
from heartllm_eval.metrics.clinical import findings, mentions
from heartllm_eval.metrics.clinical.lexicon import LEXICON, bundled, read_lexicon
from heartllm_eval.metrics.clinical.text import fold, sentences

MARKS = {"?": "uncertain", "-": "denied"}


def expected(shorthand: str) -> dict[str, str]:
    """ "SR IMI? 3AVB-" as code -> status."""
    return {part.rstrip("?-"): MARKS.get(part[-1], "stated") for part in shorthand.split()}


@pytest.mark.parametrize(
    ("report", "shorthand"),
    [
        # PTB-XL's English and what translation makes of the German
        ("sinus rhythm. normal ecg.", "SR NORM"),
        ("sinus rhythm position type normal qrs(t) abnormal high lateral infarction possible", "SR ABQRS LMI?"),
        ("sinus arrhythmia otherwise normal ecg", "SARRH NORM?"),
        ("sinus rhythm. no definite pathology.", "SR NORM"),
        ("premature ventricular contraction(s). sinus rhythm.", "PVC SR"),
        ("st segments are depressed and t waves inverted in i, avl, v3-6.", "STD_ INVT"),
        ("t waves are flat in i, ii and inverted in avl, v2-6.", "LOWT INVT"),
        ("voltages are high in limb leads suggesting lvh.", "VCLVH LVH?"),
        ("this may be due to lv strain or ischaemia and digitalis effect.", "ISC_? DIG?"),
        ("left bundle branch block, this is most commonly due to ischaemic heart disease.", "CLBBB"),
        ("patient may be at increased risk of developing complete heart block", "3AVB-"),
        ("rhythm was previously atrial flutter", "AFLT-"),
        ("q waves in ii, iii, avf consistent with old inferior myocardial infarction.", "QWAVE IMI"),
        ("permanent pacing should be considered", ""),
        # machine statements
        ("Atrial fibrillation with rapid ventricular response with PVC(s).", "AFIB PVC"),
        ("Sinus bradycardia with 1st degree A-V block", "SBRAD 1AVB"),
        ("Cannot rule out anterior infarct, age undetermined", "AMI?"),
        ("Inferior infarct - possibly acute", "IMI ACUTEMI?"),
        ("*** ACUTE MI / STEMI ***", "ACUTEMI MI"),
        ("Acute ST elevation MI, inferior", "ACUTEMI IMI"),
        ("Left axis deviation - possible left anterior fascicular block", "LAFB?"),
        ("Anterolateral ST-T changes may be due to myocardial ischemia", "ISCAL?"),
        ("Anteroseptal ST depression, subendocardial injury", "INJAS"),
        ("Sinus rhythm has replaced atrial fibrillation", "SR AFIB-"),
        ("Wandering atrial pacemaker", ""),
        ("Wide-QRS tachycardia", "VTACH?"),
        # German and Swedish originals
        ("sinusrhythmus a-v block i linkstyp", "SR 1AVB"),
        ("linkshypertrophie mÖglich qrs(t) abnormal    septaler infarkt nicht auszuschliessen", "LVH? ABQRS ASMI?"),
        ("tachykardes vorhofflimmern/-flattern, inferiorer infarkt     wahrscheinlich alt", "AFIB IMI"),
        ("mÄssige amplitudenkriterien f#r linkshypertrophie", "VCLVH"),
        ("kein AV-Block III. Grades, kein Hinweis auf Infarkt", "3AVB- MI-"),
        ("Vorderwandinfarkt ausgeschlossen", "AMI-"),
        ("unvollständiger Rechtsschenkelblock, sonst normales EKG", "IRBBB NORM?"),
        ("sinusrytm inferior infarkt bÖr ÖvervÄgas", "SR IMI?"),
    ],
)  # fmt: skip
def test_reports_of_every_style(report: str, shorthand: str) -> None:
    assert dict(findings(report)) == expected(shorthand)


@pytest.mark.parametrize(
    ("report", "shorthand"),
    [
        ("Cannot rule out inferior infarct, nothing else.", "IMI?"),
        ("cannot rule out VT, nothing else", "VTACH?"),
        ("No evidence of ischemia, hypertrophy, or infarct. LBBB.", "ISC_- MI- CLBBB"),
        ("No LVH, RVH or AF; LBBB", "LVH- RVH- AFIB- CLBBB"),
        ("no LBBB; RBBB", "CLBBB- CRBBB"),
        ("no ischaemia with left bundle branch block", "ISC_- CLBBB"),
        ("No ischemia but atrial fibrillation", "ISC_- AFIB"),
        ("Atrial fibrillation is excluded", "AFIB-"),
        ("Inferior infarct is not excluded", "IMI?"),
        ("infarkt nicht ausgeschlossen", "MI?"),
        ("ischaemia is unlikely", "ISC_-"),
        ("Possible LVH, LBBB", "LVH? CLBBB"),
        ("possible inferior ischemia or infarction", "ISCIN? IMI?"),
        ("LVH possible. LBBB", "LVH? CLBBB"),
        ("LVH, possible", "LVH?"),
        ("AF?", "AFIB?"),
        ("no evidence of possible infarct", "MI-"),
        ("possible infarct. inferior infarct", "IMI"),
        ("sinus rhythm possible left atrial enlargement", "SR LAO/LAE?"),
        ("inferior and lateral infarct", "ILMI"),
        ("anterior, lateral infarct", "AMI LMI"),
        ("old inferior and anteroseptal infarcts", "IMI ASMI"),
        ("infarct of the inferior wall", "IMI"),
        ("incomplete left bundle branch block", "ILBBB"),
        ("inferior infarct age undetermined", "IMI"),
        ("keine p-welle erkannt unspezifischer intraventrikulärer block", "IVCD"),
        ("no p waves, atrial fibrillation", "AFIB"),
        ("ectopic atrial pacemaker", ""),
        ("junctional rhythm; no sinus rhythm", "SR-"),
        ("", ""),
        ("trace only requested.", ""),
    ],
)
def test_scope_of_denial_and_doubt(report: str, shorthand: str) -> None:
    assert dict(findings(report)) == expected(shorthand)


@pytest.mark.parametrize(
    ("abbreviation", "code"),
    [
        ("LBBB", "CLBBB"), ("RBBB", "CRBBB"), ("IRBBB", "IRBBB"), ("AF", "AFIB"), ("a-fib", "AFIB"), ("LVH", "LVH"),
        ("RVH", "RVH"), ("LAFB", "LAFB"), ("LPFB", "LPFB"), ("PVCs", "PVC"), ("PACs", "PAC"), ("SVES", "PAC"),
        ("VES", "PVC"), ("WPW", "WPW"), ("SVT", "SVTAC"), ("PSVT", "PSVT"), ("VT", "VTACH"), ("VF", "VFIB"),
        ("IVCD", "IVCD"), ("LSB", "CLBBB"), ("NSR", "SR"),
    ],
)  # fmt: skip
def test_abbreviations(abbreviation: str, code: str) -> None:
    assert dict(findings(abbreviation)) == {code: "stated"}
    assert dict(findings(f"no {abbreviation.lower()}")) == {code: "denied"}


@pytest.mark.parametrize("module", ["report_a", "machine_b"])
def test_both_synthetic_sites_are_read_as_they_are_written(module: str) -> None:
    from importlib import import_module

    site = import_module(f"heartllm.data.synthetic.{module}")
    wordings = site.PHRASES if module == "report_a" else site.STATEMENTS
    # Voltage criteria, and TAB_ rather than NDT, to the lexicon.
    told_apart = {"voltages of left ventricular hypertrophy", "T wave abnormalities", "Lateral T wave abnormalities"}
    for code, texts in {**site.RHYTHM, **wordings}.items():
        for text in texts:
            if text not in told_apart:
                status = "uncertain" if text.startswith("consider") else "stated"
                assert findings(text).get(code) == status, text


def test_edits_about_the_coding_are_no_part_of_the_report() -> None:
    assert dict(findings("sinus rhythm. normal ecg. Edit: NORM 100, IRBBB, (LAFB)")) == {
        "SR": "stated",
        "NORM": "stated",
    }


def test_mentions_tell_the_words_and_the_cue() -> None:
    (found,) = mentions("Cannot rule out old inferior myocardial infarct")
    assert (found.code, found.status, found.cues) == ("IMI", "uncertain", ("cannot rule out",))
    assert found.words == "inferior myocardial infarct"


def test_sentences_know_abbreviations_numbers_and_degrees() -> None:
    lexicon = bundled()

    def split(text: str) -> list[str]:
        return [" ".join(words) for words in sentences(text, lexicon.abbreviations, lexicon.end_before)]

    assert split("pr 0.24 sec. av-block 1. grades. intraventr. block in v1.") == [
        "pr 0 24 sec", "av block 1 grades", "intraventr block in v1",
    ]  # fmt: skip
    assert split("Sinus rhythm.Normal ECG.\nAF; LBBB") == ["sinus rhythm", "normal ecg", "af", "lbbb"]


def test_every_code_of_ptbxl_can_be_found() -> None:
    lexicon = bundled()
    assert set(STATEMENTS) <= set(lexicon.codes)
    assert {code for codes in lexicon.critical.values() for code in codes} <= set(lexicon.codes)
    assert re.fullmatch(r"[0-9a-f]{8}", lexicon.digest)


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        ("[findings.AFIB]", "[findings.AFIBB]", "AFIBB"),
        ('vt = ["VTACH", "VFIB"]', 'vt = ["VTACHY"]', "VTACHY"),
        ('said = ["bigemin*"', 'said = ["(bigemin*"', "no end"),
        ('said = ["bigemin*"', 'said = ["<nothing> bigemin*"', "<nothing>"),
        ('said = ["bigemin*"', 'said = ["big+emin"', "no meaning"),
        ('said = ["bigemin*"', 'said = [".. bigemin*"', "gap"),
        ("[regions]", "[areas]", "missing"),
        ('version = "1.', "version = 1.'", "TOML"),
    ],
)
def test_a_wrong_lexicon_is_refused_in_one_line(tmp_path: Path, old: str, new: str, says: str) -> None:
    text = LEXICON.read_text(encoding="utf-8")
    assert old in text
    path = tmp_path / "mine.toml"
    path.write_text(text.replace(old, new), encoding="utf-8")
    with pytest.raises(UsageError, match=says):
        read_lexicon(path)


def test_a_lexicon_of_ones_own_is_another_lexicon(tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    path.write_text(LEXICON.read_text(encoding="utf-8").replace('"bigemin*"', '"twins"'), encoding="utf-8")
    mine = read_lexicon(path)
    assert dict(findings("twins", mine)) == {"BIGU": "stated"}
    assert dict(findings("twins")) == {}
    assert mine.digest != bundled().digest


WORDS = """
sinus rhythm atrial fibrillation inferior anterior lateral infarct ischaemia or and no not possible cannot be excluded
, . : ; - / ? left bundle branch block incomplete kein Infarkt möglich nicht auszuschließen st-t changes in v1,2 with t
waves inverted PVC(s) old Vorhofflimmern (acute) normal ECG otherwise ventricular tachycardia 1. Grades AV-Block
"""
phrases = st.lists(st.sampled_from(WORDS.split()), max_size=25).map(" ".join)


@given(st.one_of(st.text(max_size=200), phrases))
def test_nothing_is_too_strange_to_read(text: str) -> None:
    found = findings(text)
    assert set(found) <= set(bundled().codes)
    assert set(found.values()) <= {"stated", "uncertain", "denied"}
    assert {mention.code for mention in mentions(text)} >= set(found)


@given(phrases)
def test_case_and_white_space_do_not_matter(text: str) -> None:
    assert findings(text.upper()) == findings(text) == findings(text.lower())
    assert findings("  \t" + text.replace(" ", " \t  ") + "\n") == findings(text)


@given(phrases)
def test_saying_it_twice_changes_nothing(text: str) -> None:
    assert findings(f"{text}\n{text}") == findings(text)
    assert findings(fold(text)) == findings(text)


@given(phrases, phrases)
def test_sentences_do_not_act_on_each_other(first: str, second: str) -> None:
    rank = {"denied": 0, "uncertain": 1, "stated": 2}
    both, one, two = findings(f"{first}\n{second}"), findings(first), findings(second)
    for code in both:
        assert rank[both[code]] == max(rank[part[code]] for part in (one, two) if code in part)
    assert (one.keys() | two.keys()) - both.keys() <= {"MI", "INJ"}  # yield to an infarct with territory


@given(st.text())
def test_folding_twice_is_folding_once(text: str) -> None:
    assert fold(fold(text)) == fold(text)


def test_forty_thousand_reports_take_seconds() -> None:
    from heartllm.data.synthetic import machine_b, report_a

    draw = random.Random(0)
    parts = [text for table in (report_a.RHYTHM, report_a.PHRASES, machine_b.RHYTHM, machine_b.STATEMENTS)
             for texts in table.values() for text in texts]  # fmt: skip
    reports = [". ".join(draw.choices(parts, k=5)) for _ in range(40_000)]
    assert len(set(reports)) > 39_000
    start = time.process_time()
    found = [findings(report) for report in reports]
    assert time.process_time() - start < 10
    assert all(found)

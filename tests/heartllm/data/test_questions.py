"""The question builder: ECG-QA's rules by family, what is not labelled is not asked, and the draw."""

from __future__ import annotations

import time
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from heartllm.data.questions import QuestionBuilder, answer_to, find_asked, options
from heartllm.data.records import NOISE_KINDS, Entry, Labels, Question
from heartllm.data.templates import AXES, EXTRA_SYSTOLES, FEATURES, LOCATED_FORM, STAGES, STATEMENT_NAMES, templates
from heartllm.ecg.recording import LEADS
from heartllm.errors import UsageError

MI, LVH, IMI = "myocardial infarction", "left ventricular hypertrophy", "myocardial infarction in inferior leads"
INVT, SR, AFIB = "inverted t-waves", "sinus rhythm", "atrial fibrillation"


def entry(labels: Labels, record_id: str = "1") -> Entry:
    return Entry(record_id=record_id, patient_id=record_id, source="test", path=Path("x"), labels=labels)


FULL = Labels(
    statements={LVH: 100.0, IMI: 50.0, INVT: 0.0, SR: 0.0},
    statement_leads={INVT: frozenset(("II", "III", "aVF"))},
    noise={
        "baseline drift": frozenset(("V6",)),
        "static noise": frozenset(("I", "V6")),
        "burst noise": frozenset(),
        "electrodes problems": frozenset(),
    },
    infarction_stages=frozenset((STAGES[2],)),
    extra_systoles=frozenset(("ventricular extrasystoles",)),
    heart_axis="left axis deviation",
    intervals={
        "rr interval": 800.0,
        "p duration": 100.0,
        "pr interval": 220.0,
        "qrs duration": 90.0,
        "qt interval": 320.0,
        "qt corrected": 358.0,
    },
)


def answers(labels: Labels) -> dict[str, tuple[str, ...]]:
    return {question.question: question.answer for question in QuestionBuilder().all_questions(entry(labels))}


def test_a_fully_labelled_entry_is_asked_every_template() -> None:
    questions = QuestionBuilder().all_questions(entry(FULL))
    assert {question.template_id for question in questions} == set(range(1, 43))
    assert all(question.derived and question.ecg_id == ("1",) for question in questions)
    assert [question.sample_id for question in questions] == list(range(len(questions)))


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ("Does this ECG show symptoms of left ventricular hypertrophy?", ["yes"]),
        ("Does this ECG show symptoms of myocardial infarction in inferior leads?", ["not sure"]),
        ("Does this ECG show symptoms of myocardial infarction?", ["yes"]),  # a superclass: likelihood does not count
        ("Does this ECG show symptoms of inverted t-waves?", ["yes"]),  # likelihood 0: not stated
        ("Does this ECG show symptoms of atrial fibrillation?", ["no"]),
        ("Is this a normal ECG?", ["no"]),
        ("Which symptom does this ECG show, hypertrophy or conduction disturbance?", ["hypertrophy"]),
        ("Which symptom does this ECG show, myocardial infarction or hypertrophy?", ["hypertrophy", MI]),
        ("What diagnostic symptoms does this ECG show, including uncertain symptoms?", [LVH, IMI]),
        ("What diagnostic symptoms does this ECG show, excluding uncertain symptoms?", [LVH]),
        ("What rhythm-related symptoms does this ECG show?", [SR]),
        ("What form-related symptoms does this ECG show?", [INVT]),
        ("Which rhythm-related symptom does this ECG show, sinus rhythm or atrial fibrillation?", [SR]),
        ("Which rhythm-related symptom does this ECG show, sinus tachycardia or sinus arrhythmia?", ["none"]),
        ("Does this ECG show any kind of abnormal symptoms?", ["yes"]),
        ("Does this ECG show any diagnostic symptoms, excluding uncertain symptoms?", ["yes"]),
        ("Does this ECG show symptoms of inverted t-waves in lead aVF?", ["yes"]),
        ("Does this ECG show symptoms of inverted t-waves in lead I?", ["no"]),
        ("What form-related symptoms does this ECG show in lead V1?", ["none"]),
        ("What leads are showing symptoms of inverted t-waves in this ECG?", ["lead II", "lead III", "lead aVF"]),
        ("What direction is this ECG deviated to?", ["left axis deviation"]),
        ("Which cardiac axis does this ECG show, right axis deviation or normal heart axis?", ["none"]),
        ("What stage of infarction is this ECG at?", [STAGES[2]]),
        ("Does this ECG show early stage of myocardial infarction?", ["no"]),
        ("Does this ECG show static noise in lead V6?", ["yes"]),
        ("Does this ECG show static noise in lead V5?", ["no"]),
        ("Does this ECG show burst noise?", ["no"]),
        ("Does this ECG show any kind of noises in lead II?", ["no"]),
        ("Does this ECG show any kind of noises?", ["yes"]),
        ("What kind of noises does this ECG show in lead V6?", ["baseline drift", "static noise"]),
        ("What leads are showing static noise in this ECG?", ["lead I", "lead V6"]),
        ("Does this ECG show any kind of extra systoles?", ["yes"]),
        ("What kind of extra systole does this ECG show?", ["ventricular extrasystoles"]),
        ("Does the pr interval of this ECG fall above the normal range?", ["yes"]),
        ("What range does the qt interval of this ECG fall in?", ["below the normal range"]),
        ("What numeric features of this ECG fall above the normal range?", ["pr interval"]),
    ],
)
def test_ecg_qa_s_rules(text: str, answer: list[str]) -> None:
    assert list(answers(FULL)[text]) == answer


def test_an_uncertain_diagnosis_alone() -> None:
    found = answers(Labels(statements={IMI: 35.0, SR: 0.0}))
    assert found["Does this ECG show any diagnostic symptoms, including uncertain symptoms?"] == ("yes",)
    assert found["Does this ECG show any diagnostic symptoms, excluding uncertain symptoms?"] == ("no",)
    assert found["What diagnostic symptoms does this ECG show, excluding uncertain symptoms?"] == ("none",)
    pair = f"Which diagnostic symptom does this ECG show, {IMI} or {LVH}"
    assert found[f"{pair}, including uncertain symptoms?"] == (IMI,)
    assert found[f"{pair}, excluding uncertain symptoms?"] == ("none",)


def test_a_normal_ecg_in_sinus_rhythm_is_not_abnormal() -> None:
    found = answers(Labels(statements={"normal ecg": 80.0, SR: 0.0}))
    assert found["Is this a normal ECG?"] == ("yes",)
    assert found["Does this ECG show any kind of abnormal symptoms?"] == ("no",)
    assert found["Does this ECG show any diagnostic symptoms, including uncertain symptoms?"] == ("no",)
    assert found["Does this ECG show any rhythm-related symptoms?"] == ("yes",)


def test_limb_and_chest_leads() -> None:
    low = "low qrs voltages in the frontal and horizontal leads"
    located = {low: frozenset(LEADS[:6])}
    found = answers(Labels(statements={low: 0.0}, statement_leads=located))
    assert found[f"Does this ECG show symptoms of {low} in limb leads?"] == ("yes",)
    assert found[f"Does this ECG show symptoms of {low} in chest leads?"] == ("no",)


def test_no_infarction_is_a_stage_of_its_own() -> None:
    found = answers(Labels(infarction_stages=frozenset()))
    assert found["What stage of infarction is this ECG at?"] == ("none of myocardial infarction",)
    assert found[f"Which stage of infarction is this ECG at, {STAGES[0]} or {STAGES[1]}?"] == ("none",)


def test_what_is_not_labelled_is_not_asked() -> None:
    assert QuestionBuilder().all_questions(entry(Labels())) == []
    asked = {q.attribute_type for q in QuestionBuilder().all_questions(entry(Labels(heart_axis=AXES[0])))}
    assert asked == {"heart_axis"}
    partly = Labels(noise={kind: frozenset(("V1",)) for kind in NOISE_KINDS if kind != "static noise"})
    found = answers(partly)
    assert "Does this ECG show static noise?" not in found
    assert "What kind of noises does this ECG show?" not in found
    assert found["Does this ECG show burst noise?"] == ("yes",)
    assert found["Does this ECG show any kind of noises in lead V1?"] == ("yes",)
    assert "Does this ECG show any kind of noises in lead V2?" not in found
    unlocated = answers(Labels(statements={INVT: 0.0}, statement_leads={}))
    assert f"What leads are showing symptoms of {INVT} in this ECG?" not in unlocated
    assert unlocated["Does this ECG show symptoms of q waves present in lead V1?"] == ("no",)


def test_a_diagnosis_outside_the_classes_cannot_be_listed() -> None:
    rare = "right ventricular hypertrophy"
    found = answers(Labels(statements={rare: 100.0, SR: 0.0}))
    assert "What diagnostic symptoms does this ECG show, including uncertain symptoms?" not in found
    assert found["What rhythm-related symptoms does this ECG show?"] == (SR,)
    assert found["Does this ECG show symptoms of hypertrophy?"] == ("yes",)


LEAD_SETS = st.frozensets(st.sampled_from(LEADS))
LABELS = st.builds(
    Labels,
    statements=st.none()
    | st.dictionaries(
        st.sampled_from([*STATEMENT_NAMES[:-4], "normal ecg", "right ventricular hypertrophy"]),
        st.sampled_from([0.0, 15.0, 50.0, 80.0, 100.0]),
        max_size=6,
    ),
    statement_leads=st.none() | st.dictionaries(st.sampled_from(LOCATED_FORM), LEAD_SETS, max_size=3),
    noise=st.none() | st.dictionaries(st.sampled_from(NOISE_KINDS), LEAD_SETS),
    infarction_stages=st.none() | st.frozensets(st.sampled_from(STAGES), max_size=2),
    extra_systoles=st.none() | st.frozensets(st.sampled_from(EXTRA_SYSTOLES)),
    heart_axis=st.none() | st.sampled_from(AXES),
    intervals=st.none() | st.dictionaries(st.sampled_from(FEATURES), st.floats(20.0, 1500.0)),
)
ENTRIES = st.lists(LABELS, min_size=1, max_size=8).map(
    lambda many: [entry(labels, str(number)) for number, labels in enumerate(many)]
)


@settings(max_examples=30)
@given(ENTRIES, st.integers(1, 12), st.integers(0, 99), st.booleans())
def test_drawn_answers_are_allowed_true_and_deterministic(
    entries: list[Entry], per_cell: int, seed: int, paraphrase: bool
) -> None:
    builder = QuestionBuilder(min_positives=1)
    drawn = builder.draw(entries, per_cell=per_cell, seed=seed, paraphrase=paraphrase)
    assert drawn == builder.draw(entries[::-1], per_cell=per_cell, seed=seed, paraphrase=paraphrase)
    by_id = {item.record_id: item for item in entries}
    for question in drawn:
        assert question.answer
        assert set(question.answer) <= set(options(question))
        asked = find_asked(question)
        assert asked is not None
        assert set(answer_to(asked, by_id[question.ecg_id[0]]) or ()) == set(question.answer)
    rows = Counter((q.template_id, q.question_id, q.question, q.ecg_id) for q in drawn)
    assert not drawn or max(rows.values()) == 1
    yes = Counter((q.template_id, find_asked(q)) for q in drawn if q.answer == ("yes",))
    assert not yes or max(yes.values()) <= per_cell


@settings(max_examples=40)
@given(LABELS)
def test_all_questions_do_not_depend_on_the_order_of_labels(labels: Labels) -> None:
    turned = {
        name: dict(reversed(list(value.items()))) if isinstance(value, dict) else value
        for name, value in ((name, getattr(labels, name)) for name in Labels.__dataclass_fields__)
    }
    first = QuestionBuilder().all_questions(entry(labels))
    assert first == QuestionBuilder().all_questions(entry(Labels(**turned)))
    assert all(set(question.answer) <= set(options(question)) for question in first)


def many(number: int) -> list[Entry]:
    """Recordings with rare and common findings: every 10th has fibrillation, every 3rd static noise in V1 or V2."""
    return [
        entry(
            Labels(
                statements={
                    AFIB if n % 10 == 0 else SR: 0.0,
                    **({LVH: 50.0 if n % 2 else 100.0} if n % 4 == 0 else {}),
                },
                noise={
                    **{kind: frozenset() for kind in NOISE_KINDS},
                    "static noise": frozenset((LEADS[6 + n % 2],)) if n % 3 == 0 else frozenset(),
                },
            ),
            str(n),
        )
        for n in range(number)
    ]


def test_the_draw_is_balanced_one_yes_to_two_no() -> None:
    drawn = QuestionBuilder().draw(many(1000), per_cell=20, seed=3)
    for text in ("Does this ECG show symptoms of atrial fibrillation?", "Does this ECG show static noise in lead V1?"):
        assert Counter(q.answer for q in drawn if q.question == text) == {("yes",): 20, ("no",): 40}
    verify = Counter(q.answer for q in drawn if q.question_type == "single-verify")
    assert verify["no",] == pytest.approx(2 * verify["yes",], rel=0.1)
    always = "Does this ECG show any rhythm-related symptoms?"  # "yes" for every one of these recordings
    assert always not in {q.question for q in drawn}


def test_no_answer_to_a_query_outweighs_the_others() -> None:
    drawn = QuestionBuilder(templates=[10, 33]).draw(many(200), per_cell=30, seed=3)
    noises = "What kind of noises does this ECG show in lead {}?"
    for text in ("What rhythm-related symptoms does this ECG show?", noises.format("V1")):
        counts = Counter(q.answer for q in drawn if q.question == text)
        assert len(counts) == 2
        assert max(counts.values()) == min(counts.values())
    assert noises.format("V6") not in {q.question for q in drawn}  # always "none"


def test_half_of_the_no_of_a_lead_question_is_noisy_elsewhere() -> None:
    drawn = QuestionBuilder(templates=[26]).draw(many(1000), per_cell=20, seed=3)
    chosen = [q for q in drawn if q.question == "Does this ECG show static noise in lead V1?" and q.answer == ("no",)]
    assert sum(int(q.ecg_id[0]) % 3 == 0 for q in chosen) == 20


def test_choices_name_either_candidate_first_and_use_a_recording_once() -> None:
    drawn = QuestionBuilder(templates=[7]).draw(many(1000), per_cell=400, seed=3)
    assert max(Counter(q.ecg_id for q in drawn).values()) == 1
    assert len({q.attribute for q in drawn if set(q.attribute) == {SR, AFIB}}) == 2


def test_seeds_differ_and_min_positives_leaves_rare_ones_out() -> None:
    entries = many(300)
    draws = [QuestionBuilder().draw(entries, per_cell=5, seed=seed) for seed in (1, 2)]
    assert draws[0] != draws[1]
    kept = QuestionBuilder(templates=[1], min_positives=31).draw(entries, per_cell=5, seed=1)
    assert "atrial fibrillation" not in {q.attribute[0] for q in kept}
    assert LVH in {q.attribute[0] for q in kept}


def test_paraphrases_are_ours_and_mean_the_same() -> None:
    entries = many(60)
    drawn = QuestionBuilder().draw(entries, per_cell=10, seed=5, paraphrase=True)
    texts = {question.text for question in templates().values()}
    assert not texts & {question.question for question in drawn}
    assert len({q.question for q in drawn if q.template_id == 10}) >= 3


def test_two_thousand_entries_are_drawn_in_three_seconds() -> None:
    entries = many(2000)
    start = time.process_time()  # other work on the machine does not count
    QuestionBuilder().draw(entries, per_cell=40, seed=1)
    assert time.process_time() - start < 3


@pytest.mark.parametrize("arguments", [{"templates": [43]}, {"min_positives": 0}, {"no_per_yes": 0.0}])
def test_wrong_arguments_are_usage_errors(arguments: dict[str, object]) -> None:
    with pytest.raises(UsageError, match=next(iter(arguments))):
        QuestionBuilder(**arguments)  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="per_cell"):
        QuestionBuilder().draw([], per_cell=0, seed=1)


def test_rows_of_other_templates_ask_nothing_of_ours() -> None:
    assert (
        find_asked(Question(57, 0, 0, "comparison_irrelevant-verify", "scp_code", "?", ("no",), ("1", "2"), ())) is None
    )

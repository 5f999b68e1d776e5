"""`heartllm-eval view`: runs as one HTML page that needs no network and no program but a browser.

gather.py    run folders -> what the page is about, the same samples of several runs held against each other
columns.py   a task's samples -> an index (numbers only) and chunks of texts
ecgs.py      recordings -> 16-bit samples, on request
contents.py  all of it -> the page's JSON
assemble.py  JSON, chunks, scripts and styles -> one HTML file

The scripts (*.js) run one after another in one strict function, in the order of `assemble.SCRIPTS`; there is no
build step.
"""

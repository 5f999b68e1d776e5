"""The paper's results: a plan of rows (`plan`), what trains and evaluates them (`driver`), and what is shown of them.

Tables, claims and the results page are made of frozen runs alone: no torch, no data, no checkpoint.
"""

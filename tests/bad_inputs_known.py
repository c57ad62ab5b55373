"""Wrong arguments that kdlab does not answer in its own words yet, by file.

test_bad_inputs marks them xfail, strictly: a fault that is mended must be taken out here.
"name(argument)": the wrong values, by their names in test_bad_inputs.BAD; "all" for every one.
"""

KNOWN = {}

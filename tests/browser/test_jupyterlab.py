"""JupyterLab by `make lab`'s own command: lesson 00 opens, its first part runs, and it answers an
exercise and a prediction. That it runs to its end is what nbval tells."""

import nbformat

from kdlab.lessons.saving import VIEW

FIRST = "notebooks/00_start_here.ipynb"


def run_all(page):
    page.get_by_text("| Idle").wait_for()
    page.get_by_role("menuitem", name="Run", exact=True).click()
    page.get_by_role("menuitem", name="Run All Cells", exact=True).click()


def test_make_lab_opens_lesson_00_whose_cells_run(page, lab):
    directory, address = lab
    path = directory / FIRST
    committed = nbformat.read(path, 4)
    written = sum(cell.cell_type == "code" for cell in committed.cells)
    page.goto(address())
    page.get_by_role("heading", name="00 · Start here").wait_for()
    assert page.url.split("?")[0].endswith(f"/lab/tree/{FIRST}")
    run_all(page)
    page.get_by_text("| Busy").wait_for()
    page.get_by_text("| Idle").wait_for()

    page.keyboard.press("Escape")  # a new cell below the last
    page.keyboard.press("b")
    page.keyboard.press("Enter")
    page.keyboard.type('estimate = kd.yours("00.1", kd.reference("00.1"))')
    page.keyboard.press("Shift+Enter")
    page.get_by_text("right. The lesson runs on your code").wait_for()

    guess = page.get_by_role("button", name="more than five points better")
    guess.scroll_into_view_if_needed()
    said = page.locator(".jp-OutputArea-output [role=status]").first
    assert not said.is_visible()
    guess.focus()
    page.keyboard.press("Enter")  # which the Lab would take to go into the cell
    # Python's answer to the guess: by then it has told the number of the cell above, too
    page.get_by_text("Right: more than five points better.").wait_for()
    assert said.is_visible()

    for _ in range(20):  # until the new cell, with its answer and its number, is on the disk
        # with the focus on a question's button, which keeps other keys from the Lab
        # one save at a time: the Lab asks what to do with a file that changes under a second one
        with page.expect_response(lambda got: got.request.method == "PUT" and FIRST in got.url):
            page.keyboard.press("Control+s")
        cells = nbformat.read(path, 4).cells
        code = [cell for cell in cells if cell.cell_type == "code" and cell.source]
        if len(code) > written and all(cell.execution_count for cell in code):
            break
        page.wait_for_timeout(1000)
    assert [cell.execution_count for cell in code] == sorted(cell.execution_count for cell in code)
    assert len(code) == written + 1
    # nothing of the run stands in the file: no widget's id, no clock, no version of an editor
    saved = nbformat.read(path, 4)
    assert VIEW not in path.read_text(encoding="utf-8")
    assert saved.metadata == committed.metadata
    for mine, theirs in zip(saved.cells, committed.cells, strict=False):
        assert (mine.id, mine.metadata, mine.source) == (theirs.id, theirs.metadata, theirs.source)
    assert code[-1].execution_count == len(code)
    kinds = [out.output_type for cell in code for out in cell.outputs]
    assert "error" not in kinds and not [
        o for c in code for o in c.outputs if o.get("name") == "stderr"
    ]
    assert sum("image/png" in o.get("data", {}) for cell in code for o in cell.outputs) == 1

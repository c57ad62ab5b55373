// n: the speaker's notes and the numbers as they stand, in a window of its own for the speaker's own screen.
(() => {
  let notes = null;
  const style = "body { color: #1f2937; font: 20px/1.5 system-ui, sans-serif; margin: 2rem auto; max-width: 44rem; padding: 0 1rem; }" +
    " h1 { font-size: 1.4em; } .kdlab-numbers { border-top: 2px solid #d3d9e0; font-variant-numeric: tabular-nums; padding-top: 0.5em; }";

  function numbers() {
    if (!notes || notes.closed) return;
    const now = [".kdlab-explorer figcaption", ".kdlab-numbers"].map((found) => document.querySelector(found));
    notes.document.getElementById("now").replaceChildren(...now.filter(Boolean).map((node) => notes.document.importNode(node, true)));
  }

  function open() {
    notes = window.open("", "kdlab-notes", "popup,width=860,height=760");
    if (!notes) return;
    const written = document.querySelector("details"), title = document.querySelector(".jp-MarkdownCell h1");
    notes.document.title = "Speaker's notes";
    notes.document.head.innerHTML = "<style>" + style + "</style>";
    notes.document.body.innerHTML = "<main><h1></h1><div id='notes'></div><div id='now'></div></main>";
    notes.document.querySelector("h1").textContent = title ? title.firstChild.textContent : document.title;
    for (const node of written ? written.children : [])
      if (node.tagName !== "SUMMARY") notes.document.getElementById("notes").append(notes.document.importNode(node, true));
    numbers();
  }

  addEventListener("keydown", (event) => {
    const typing = event.target.matches("input[type=text], textarea");
    if (event.key === "n" && !typing && !event.ctrlKey && !event.metaKey && !event.altKey) open();
  });
  new MutationObserver(numbers).observe(document, { childList: true, subtree: true, characterData: true });
})();

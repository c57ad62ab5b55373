// One explorer: native controls, which every keyboard and screen reader knows, a picture and its numbers as text.
const DELAY = 80, PATIENCE = 15000; // milliseconds: a held key sends once; silence after this is said

function make(tag, attributes, ...children) {
  const node = document.createElement(tag);
  for (const [key, value] of Object.entries(attributes)) node.setAttribute(key, value);
  node.append(...children);
  return node;
}

function control(spec, id) {
  let input, shown;
  if (spec.kind === "slider") {
    input = make("input", { type: "range", id, min: 0, max: spec.options.length - 1, step: 1 });
    shown = make("span", { class: "kdlab-value", "aria-hidden": "true" });
  } else if (spec.kind === "choice") {
    input = make("select", { id }, ...spec.shown.map((text, i) => make("option", { value: i }, text)));
  } else {
    input = make("input", { type: "text", id, autocomplete: "off", spellcheck: "false", maxlength: spec.length });
  }
  const label = make("label", { for: id }, spec.label);
  const describe = () => {
    if (!shown) return;
    shown.textContent = spec.shown[input.value];
    input.setAttribute("aria-valuetext", shown.textContent);
  };
  return {
    name: spec.name, input, describe,
    words: () => spec.label + ": " + (spec.kind === "entry" ? input.value : spec.shown[input.value]),
    node: make("div", { class: "kdlab-control kdlab-" + spec.kind }, label, input, ...(shown ? [shown] : [])),
    read: () => (spec.kind === "entry" ? input.value : spec.options[input.value]),
    write: (value) => {
      input.value = spec.kind === "entry" ? value : spec.options.indexOf(value);
      describe();
    },
  };
}

function render({ model, el }) {
  const own = "kdlab-" + Math.random().toString(36).slice(2);
  const controls = model.get("controls").map((spec, i) => control(spec, own + "-" + i));
  const image = make("img", { alt: "", decoding: "sync" }), caption = make("figcaption", {});
  const numbers = make("div", { class: "kdlab-numbers", "aria-live": "polite", "aria-atomic": "true" });
  const status = make("div", { class: "kdlab-status", role: "status" });
  const error = make("div", { class: "kdlab-error", role: "alert" });
  const form = make("form", { class: "kdlab-controls" }, ...controls.map((c) => c.node));
  // JupyterLab would take the arrows to go from cell to cell; Ctrl-S, to save, stays its own
  const saves = (event) => (event.ctrlKey || event.metaKey) && event.key.toLowerCase() === "s";
  const keys = (event) => form.contains(event.target) &&
    event.target.toggleAttribute("data-lm-suppress-shortcuts", !saves(event));
  window.addEventListener("keydown", keys, true);
  const view = make("div", { class: "kdlab-view" }, image, status, error);
  el.append(make("section", { class: "kdlab-explorer", "aria-label": model.get("title") },
    make("h3", {}, model.get("title")), form, make("figure", {}, view, caption), numbers));
  let sending = null, waiting = null;

  const present = () => Object.fromEntries(controls.map((c) => [c.name, c.read()]));
  const write = () => controls.forEach((c) => c.write(model.get("values")[c.name]));

  function send() {
    sending = null;
    const before = model.get("values"), values = present();
    if (controls.every((c) => before[c.name] === values[c.name])) return show();
    model.set("values", values);
    model.save_changes();
  }

  // at once, before Python hears of it: the old picture goes pale under what was asked for
  function wait(headline, words) {
    status.replaceChildren(make("strong", {}, headline), make("span", {}, words));
    view.classList.add("kdlab-waiting");
  }

  function changed(asked) {
    controls.forEach((c) => c.describe());
    wait("computing …", asked.words());
    clearTimeout(sending);
    clearTimeout(waiting);
    sending = setTimeout(send, DELAY);
    waiting = setTimeout(() => {
      wait("no answer yet", "If it stays so, Python has stopped or is busy: run the cell again.");
    }, PATIENCE);
  }

  function show() {
    const answer = model.get("answer"), values = present();
    error.textContent = answer.error;
    if (image.src !== answer.src) image.src = answer.src;
    image.alt = answer.alt;
    caption.textContent = answer.caption;
    if (numbers.textContent !== answer.lines.join(""))
      numbers.replaceChildren(...answer.lines.map((line) => make("p", {}, line)));
    if (controls.every((c) => answer.values[c.name] === values[c.name])) {
      clearTimeout(waiting);
      status.textContent = "";
      view.classList.remove("kdlab-waiting");
    }
  }

  form.addEventListener("submit", (event) => event.preventDefault());
  for (const c of controls) c.input.addEventListener(c.input.type === "text" ? "change" : "input", () => changed(c));
  const moved = () => sending === null && write(); // by Python, or in another view
  model.on("change:values", moved);
  model.on("change:answer", show);
  write();
  show();
  return () => {
    clearTimeout(sending);
    clearTimeout(waiting);
    window.removeEventListener("keydown", keys, true);
    model.off("change:values", moved);
    model.off("change:answer", show);
  };
}

export default { render };

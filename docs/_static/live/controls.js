// Native controls, which every keyboard and screen reader knows, with the look of the explorers.
function kdlabControls(form, specs, changed) {
  "use strict";

  function make(tag, attributes, ...children) {
    const node = document.createElement(tag);
    for (const [key, value] of Object.entries(attributes)) node.setAttribute(key, value);
    node.append(...children);
    return node;
  }

  // {name, label, options, shown, start} and kind: "slider" or "choice"; "entry" is a line to type
  function control(spec) {
    const id = `kdlab-${spec.name}`, said = make("output", { class: "kdlab-value", for: id });
    let input;
    if (spec.kind === "choice") {
      input = make("select", { id }, ...spec.shown.map((words, i) => make("option", { value: i }, words)));
    } else if (spec.kind === "entry") {
      input = make("input", { id, type: "text", autocomplete: "off", spellcheck: "false", maxlength: 300 });
    } else {
      input = make("input", { id, type: "range", min: 0, max: spec.options.length - 1, step: 1 });
    }
    const describe = () => {
      if (spec.kind !== "slider") return;
      said.value = spec.shown[input.value];
      input.setAttribute("aria-valuetext", said.value);
    };
    const write = (value) => {
      input.value = spec.kind === "entry" ? value : spec.options.indexOf(value);
      describe();
    };
    write(spec.start);
    input.addEventListener(spec.kind === "entry" ? "change" : "input", () => {
      describe();
      changed();
    });
    form.append(make("div", { class: `kdlab-control kdlab-${spec.kind}` },
      make("label", { for: id }, spec.label), input, ...(spec.kind === "slider" ? [said] : [])));
    return { spec, write, read: () => (spec.kind === "entry" ? input.value : spec.options[input.value]) };
  }

  form.addEventListener("submit", (event) => event.preventDefault());
  const controls = specs.map(control);

  // The settings in the address (train.html#T=8&alpha=1), so that one can be sent as a link.
  function fromAddress() {
    const said = new URLSearchParams(location.hash.slice(1));
    for (const { spec, write } of controls) {
      const at = (spec.options || []).findIndex((option) => String(option) === said.get(spec.name));
      if (at >= 0) write(spec.options[at]);
    }
  }

  function read() {
    return Object.fromEntries(controls.map(({ spec, read }) => [spec.name, read()]));
  }

  function toAddress() {
    history.replaceState(null, "", `#${new URLSearchParams(read())}`);
  }

  window.addEventListener("hashchange", () => {
    fromAddress();
    changed();
  });
  fromAddress();
  return { read, toAddress, make };
}

// A slider over listed values, or a list to choose from.
function kdlabListed(kind, name, label, options, start, shown) {
  return { kind, name, label, options, start, shown: (shown || options).map(String) };
}

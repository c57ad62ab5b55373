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
    const id = `kdlab-${spec.name}`,
      said = make("output", { class: "kdlab-value", for: id });
    let input;
    if (spec.kind === "choice") {
      input = make(
        "select",
        { id },
        ...spec.shown.map((words, i) => make("option", { value: i }, words)),
      );
    } else if (spec.kind === "entry") {
      input = make("input", {
        id,
        type: "text",
        autocomplete: "off",
        spellcheck: "false",
        maxlength: 300,
      });
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
    const whole = make(
      "div",
      { class: `kdlab-control kdlab-${spec.kind}` },
      make("label", { for: id }, spec.label),
      input,
      ...(spec.kind === "slider" ? [said] : []),
    );
    form.append(whole);
    return {
      spec,
      write,
      read: () => (spec.kind === "entry" ? input.value : spec.options[input.value]),
      show: (seen) => {
        whole.hidden = !seen;
      },
    };
  }

  form.addEventListener("submit", (event) => event.preventDefault());
  const controls = specs.map(control);

  // Settings as an address says them, T=8&alpha=1; what it doesn't say stays as it is.
  function write(settings) {
    const said = new URLSearchParams(settings);
    for (const { spec, write } of controls) {
      const at = (spec.options || []).findIndex((option) => String(option) === said.get(spec.name));
      if (at >= 0) write(spec.options[at]);
    }
  }

  function read() {
    return Object.fromEntries(controls.map(({ spec, read }) => [spec.name, read()]));
  }

  // Show or hide a control, such as one that another leaves without a part.
  function show(name, seen) {
    controls.find(({ spec }) => spec.name === name).show(seen);
  }

  // The address keeps the settings (train.html#T=8&alpha=1), so that they can be sent as a link.
  const fromAddress = () => write(location.hash.slice(1));

  function toAddress() {
    history.replaceState(null, "", `#${new URLSearchParams(read())}`);
  }

  // Buttons of a page that name settings; the others go back to where they began.
  for (const button of document.querySelectorAll(".kdlab-live [data-settings]")) {
    button.addEventListener("click", () => {
      for (const { spec, write } of controls) write(spec.start);
      write(button.dataset.settings);
      changed();
    });
  }

  window.addEventListener("hashchange", () => {
    fromAddress();
    changed();
  });
  fromAddress();
  // What was found, in words: a paragraph a line, the first one the weightiest.
  function say(place, lines) {
    const words = (line, i) => (i ? line : make("strong", {}, line));
    place.replaceChildren(...lines.map((line, i) => make("p", {}, words(line, i))));
  }

  return { read, show, say, toAddress, make };
}

// A slider over listed values, or a list to choose from.
function kdlabListed(kind, name, label, options, start, shown) {
  return { kind, name, label, options, start, shown: (shown || options).map(String) };
}

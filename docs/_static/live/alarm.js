// What goes wrong on a live page is said on it: a reader sees no console.
window.addEventListener("error", (event) => {
  const missing = event.target instanceof HTMLScriptElement && "a file of it is missing";
  const words = missing || (event.error && event.message); // a ResizeObserver's remark has no error
  const place = document.getElementById("kdlab-error");
  if (words && place) place.textContent = `This page could not go on: ${words}.`;
}, true); // a missing file's event does not rise

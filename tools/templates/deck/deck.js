// Start when the formulas are set; a slide that is too tall for the screen is made smaller, step by step.
const HEIGHT = 720, ARROWS = 56; // nothing is to lie under the arrows

function fit(slide) {
  if (!slide) return;
  let zoom = 1;
  slide.style.zoom = zoom;
  while (slide.scrollHeight * zoom > HEIGHT - ARROWS && zoom > 0.4) {
    zoom -= 0.05;
    slide.style.zoom = zoom;
  }
}

MathJax.startup.promise.then(() => Reveal.initialize({
  width: 1280, height: HEIGHT, margin: 0.04, center: false, hash: true, slideNumber: "c/t", transition: "none",
  plugins: [RevealNotes],
})).then(() => {
  fit(Reveal.getCurrentSlide());
  Reveal.on("slidechanged", (event) => fit(event.currentSlide));
});

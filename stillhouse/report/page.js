(function () {
  const PRINTED_WIDTH_PX = 680; // of A4 and Letter, less the margins in print.css
  const NEAR = "400px"; // of the window's edge
  const system = window.matchMedia("(prefers-color-scheme: dark)");
  // As the system's own list of this name, but never dark on paper.
  const dark = Object.assign(new EventTarget(), { matches: system.matches });
  window.stillhouse = { dark };

  function turn(isDark) {
    dark.matches = isDark;
    dark.dispatchEvent(new Event("change"));
  }

  function listSections() {
    const list = document.createElement("ul");
    document.querySelectorAll("main h2").forEach((head) => {
      head.id = head.id || head.textContent.trim().toLowerCase().replace(/[^a-z0-9]+/g, "-");
      const link = document.createElement("a");
      link.href = `#${head.id}`;
      link.textContent = head.textContent;
      list.appendChild(document.createElement("li")).append(link);
    });
    const place = document.getElementById("sections");
    place.append(list);
    place.hidden = list.children.length < 2;
  }

  // What scrolls sideways can be reached and scrolled with the keyboard as well.
  function makeScrollable() {
    for (const box of document.querySelectorAll("details > div")) {
      const scrolls = box.scrollWidth > box.clientWidth;
      if (scrolls) box.tabIndex = 0;
      else box.removeAttribute("tabindex");
    }
  }

  // Thousands of rows are made only for a reader who opens them.
  function addLaterTrials() {
    const later = document.getElementById("later-trials");
    const body = document.querySelector("#trials tbody");
    const pattern = body.rows[0];
    const rows = JSON.parse(later.textContent).map((cells) => {
      const row = pattern.cloneNode(true);
      cells.forEach((cell, place) => { row.cells[place].firstElementChild.textContent = cell; });
      return row;
    });
    later.remove();
    body.append(...rows);
  }

  // Draws a plot when it is about to be seen or printed: all at once would take seconds.
  function drawPlots() {
    const plots = document.getElementById("plots");
    if (!plots) return () => {};
    const darkOf = new Map(Object.entries(JSON.parse(plots.dataset.dark)));
    const figures = JSON.parse(plots.textContent);
    const themed = (key, value) => (dark.matches && darkOf.get(value)) || value;
    const drawn = (place) => document.getElementById(place).classList.contains("js-plotly-plot");
    function draw(place) {
      const figure = JSON.parse(JSON.stringify(figures[place]), themed);
      Plotly.react(place, figure.data, figure.layout, {
        responsive: true, displaylogo: false,
        modeBarButtonsToRemove: ["select2d", "lasso2d", "autoScale2d"],
      }).then(() => performance.mark(`drawn ${place}`)); // which a measurement reads
    }
    const places = Object.keys(figures);
    const observer = new IntersectionObserver((entries) => {
      const near = entries.filter((entry) => entry.isIntersecting).map((entry) => entry.target);
      near.forEach((one) => observer.unobserve(one));
      // One after another, so that the first is seen while the next is drawn.
      near.forEach((one) => setTimeout(() => drawn(one.id) || draw(one.id)));
    }, { rootMargin: NEAR });
    places.forEach((place) => observer.observe(document.getElementById(place)));
    dark.addEventListener("change", () => places.filter(drawn).forEach(draw));
    return () => places.filter((place) => !drawn(place)).forEach(draw);
  }

  const opened = [];
  window.addEventListener("beforeprint", () => {
    for (const one of document.querySelectorAll("details:not([open])")) {
      if (one.querySelector("#later-trials")) continue; // hundreds of rows, which nobody opened
      one.open = true;
      opened.push(one);
    }
    drawMissing();
    turn(false);
    for (const plot of document.querySelectorAll(".js-plotly-plot")) Plotly.relayout(plot, { width: PRINTED_WIDTH_PX });
  });
  window.addEventListener("afterprint", () => {
    opened.splice(0).forEach((one) => { one.open = false; });
    turn(system.matches);
  });
  system.addEventListener("change", () => turn(system.matches));
  window.addEventListener("resize", makeScrollable);
  document.addEventListener("toggle", (event) => {
    if (event.target.open && event.target.querySelector("#later-trials")) addLaterTrials();
    makeScrollable();
  }, true);
  listSections();
  makeScrollable();
  const drawMissing = drawPlots();
})();

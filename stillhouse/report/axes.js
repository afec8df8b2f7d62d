(function () {
  const written = JSON.parse(document.getElementById("axes").textContent);
  const plots = document.getElementById("plots");
  const darkOf = new Map(Object.entries(JSON.parse(plots.dataset.dark)));
  const dark = window.stillhouse.dark;
  const LOG_FROM_RATIO = 12;
  const writers = {
    score: (value) => value.toFixed(4),
    loss: (value) => value.toFixed(4),
    fraction: (value) => `${(100 * value).toFixed(1)} %`,
    ms: (value) => `${Number(value.toPrecision(3))} ms`,
    MB: (value) => `${Number(value.toPrecision(3))} MB`,
    s: (value) => `${Number(value.toPrecision(3))} s`,
    times: (value) => `${Number(value.toPrecision(3))}×`,
    count: (value) => Math.round(value).toLocaleString("en"),
    number: (value) => String(Number(value.toPrecision(4))),
  };
  const config = {
    responsive: true, displaylogo: false,
    modeBarButtonsToRemove: ["select2d", "lasso2d", "autoScale2d"],
  };

  function themed(figure) {
    return JSON.parse(JSON.stringify(figure), (key, value) => (dark.matches && darkOf.get(value)) || value);
  }

  function escaped(text) {
    return text.replaceAll("&", "&amp;").replaceAll("<", "&lt;").replaceAll(">", "&gt;");
  }

  // All that is known of a point, what the axes show first.
  function hover(figure, series, row, shown) {
    const known = figure.axes.filter((axis) => (series.values[axis.name] || [])[row] != null);
    known.sort((one, other) => shown.includes(other.name) - shown.includes(one.name));
    const lines = known.map((axis) => {
      const told = writers[axis.unit](series.values[axis.name][row]);
      const line = `${escaped(axis.label)}: ${told}`;
      return shown.includes(axis.name) ? `<b>${line}</b>` : line;
    });
    return [series.head[row], ...lines].join("<br>");
  }

  function bars(series, name, rows) {
    const [low, high] = [series.low[name], series.high[name]];
    if (!low || !high) return undefined;
    const reach = (ends, row) => ends[row] == null ? 0 : Math.abs(ends[row] - series.values[name][row]);
    return {
      type: "data", symmetric: false, thickness: 1.5, color: (series.look.marker || {}).color,
      array: rows.map((row) => reach(high, row)), arrayminus: rows.map((row) => reach(low, row)),
    };
  }

  // Texts above and below their marks in turn, from the left: neighbours do not overlap.
  function sides(across) {
    const found = [];
    across.map((_, place) => place).sort((one, other) => across[one] - across[other])
      .forEach((place, turn) => { found[place] = turn % 2 ? "bottom center" : "top center"; });
    return found;
  }

  // Lines, as that of the best so far, tell no points of their own.
  function isOfPoints(look) {
    return look.mode.includes("markers");
  }

  function trace(figure, series, x, y) {
    const [across, up] = [series.values[x] || [], series.values[y] || []];
    const rows = series.head.map((_, row) => row).filter((row) => across[row] != null && up[row] != null);
    if (!rows.length) return null;
    const drawn = {
      ...series.look, hoverinfo: "text",
      x: rows.map((row) => across[row]), y: rows.map((row) => up[row]),
      hovertext: rows.map((row) => hover(figure, series, row, [x, y])),
      error_x: bars(series, x, rows), error_y: bars(series, y, rows),
    };
    if (series.text) drawn.text = rows.map((row) => series.text[row]);
    if (Array.isArray(series.look.textposition)) drawn.textposition = sides(drawn.x);
    return drawn;
  }

  function axisLayout(base, axis, values) {
    const all = [...values, ...axis.limits];
    const wide = all.every((value) => value > 0) && Math.max(...all) > LOG_FROM_RATIO * Math.min(...all);
    const logged = wide && axis.unit !== "score" && !axis.linear;
    const layout = {
      title: { ...base.title, text: escaped(axis.label) }, gridcolor: base.gridcolor, linecolor: base.linecolor,
      zeroline: false, automargin: true, ticks: "outside", tickcolor: base.tickcolor,
      type: logged ? "log" : "linear",
    };
    if (logged) layout.dtick = Math.max(...all) > 1000 * Math.min(...all) ? 1 : "D2";
    if (axis.unit === "fraction") layout.tickformat = "~%";
    return layout;
  }

  function bands(axis, look) {
    return axis.bands.map(([start, end, text]) => ({ ...look, x0: start, x1: end, label: { ...look.label, text: escaped(text) } }));
  }

  function limits(axis, isAcross, logged, color) {
    const [along, other] = isAcross ? ["x", "y"] : ["y", "x"];
    const shapes = axis.limits.map((limit) => ({
      type: "line", [`${along}ref`]: along, [`${other}ref`]: "paper",
      [`${along}0`]: limit, [`${along}1`]: limit, [`${other}0`]: 0, [`${other}1`]: 1,
      line: { color, width: 1.5, dash: "dash" },
    }));
    const notes = axis.limits.map((limit) => ({
      [`${along}ref`]: along, [`${other}ref`]: "paper", [along]: logged ? Math.log10(limit) : limit, [other]: isAcross ? 0 : 1,
      xanchor: "right", yanchor: "bottom", textangle: isAcross ? -90 : 0, showarrow: false,
      text: escaped(axis.note || `limit ${writers[axis.unit](limit)}`), font: { size: 11, color },
    }));
    return { shapes, notes };
  }

  function chosen(place, figure, x, y) {
    const base = JSON.parse(plots.textContent)[place].layout;
    const data = figure.series.map((series) => trace(figure, series, x, y)).filter(Boolean);
    const [across, up] = [x, y].map((name) => figure.axes.find((axis) => axis.name === name));
    const xaxis = axisLayout(base.xaxis, across, data.flatMap((one) => one.x));
    const yaxis = axisLayout(base.xaxis, up, data.flatMap((one) => one.y));
    const [vertical, level] = [limits(across, true, xaxis.type === "log", figure.limit),
      limits(up, false, yaxis.type === "log", figure.limit)];
    const layout = {
      ...base, xaxis, yaxis, yaxis2: undefined,
      shapes: [...bands(across, figure.band), ...vertical.shapes, ...level.shapes], annotations: [...vertical.notes, ...level.notes],
    };
    const counted = data.filter(isOfPoints).reduce((sum, one) => sum + one.x.length, 0);
    return { data, layout, counted, across, up };
  }

  function connect(form) {
    const place = form.dataset.plot;
    const figure = { ...written.figures[place], limit: written.limit, band: written.band };
    const box = document.getElementById(place);
    const label = box.getAttribute("aria-label");
    const [x, y] = ["x", "y"].map((name) => form.elements[name]);
    const told = form.querySelector("output");
    const ofPoints = figure.series.filter((series) => isOfPoints(series.look));
    const count = ofPoints.reduce((sum, series) => sum + series.head.length, 0);
    const isWritten = () => x.value === figure.x && y.value === figure.y;
    // What the caption tells of the axes as written is false of others.
    function caption() {
      const around = form.closest("figure");
      around.querySelectorAll("[data-as-written]").forEach((one) => { one.hidden = !isWritten(); });
      around.querySelectorAll("[data-otherwise]").forEach((one) => { one.hidden = isWritten(); });
    }
    function draw() {
      caption();
      if (isWritten()) {
        const original = themed(JSON.parse(plots.textContent)[place]);
        Plotly.newPlot(box, original.data, original.layout, config);
        box.setAttribute("aria-label", label);
        told.textContent = "";
        return;
      }
      const drawn = chosen(place, figure, x.value, y.value);
      const { data, layout } = themed({ data: drawn.data, layout: drawn.layout });
      Plotly.newPlot(box, data, layout, config);
      box.setAttribute("aria-label", `Scatter of ${drawn.up.label} against ${drawn.across.label}`);
      told.textContent = `${drawn.counted} of ${count} points have both.`;
    }
    form.addEventListener("change", draw);
    form.addEventListener("submit", (event) => event.preventDefault());
    dark.addEventListener("change", () => { if (!isWritten()) draw(); });
    form.hidden = false;
    if (!isWritten()) draw(); // a browser may bring back what was chosen before the page was reloaded
  }
  document.querySelectorAll("form.axes").forEach(connect);
})();

"use strict";
// Names come from whoever made the tables: they are set as text, never as markup.
(() => {
  const data = JSON.parse(document.getElementById("data").textContent);
  const $ = (id) => document.getElementById(id);
  const SVG = "http://www.w3.org/2000/svg";
  const TRAINING = "step";
  const MOST_ROWS = 100, MOST_LINES = 7;

  function make(kind, text, parent, attributes = {}) {
    const made = document.createElement(kind);
    if (text !== undefined && text !== null) made.textContent = text;
    for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
    if (parent) parent.append(made);
    return made;
  }
  function drawn(kind, attributes, parent) {
    const made = document.createElementNS(SVG, kind);
    for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
    parent.append(made);
    return made;
  }
  function number(value) {
    if (value === null || value === undefined) return "–";
    return String(Number(value.toPrecision(3)));
  }
  const distinct = (values) => [...new Set(values)];
  function options(select, entries, chosen) {
    select.replaceChildren();
    for (const [value, text] of entries) make("option", text, select, { value });
    if (entries.some(([value]) => value === chosen)) select.value = chosen;
  }

  // ---- the points ----
  const columns = Object.entries(data.points).map(([name, column]) => [
    name, column.codes ? column.codes.map((code) => column.values[code]) : column,
  ]);
  const points = (columns.length ? columns[0][1] : []).map((_, row) =>
    Object.fromEntries(columns.map(([name, values]) => [name, values[row]])));

  const state = { measure: null, off: {}, step: null, layer: null, sort: null, down: false, all: false };

  function ofMeasure() { return points.filter((point) => point.measure === state.measure); }
  function varying(rows) {
    return data.dimensions.filter((name) => distinct(rows.map((row) => row[name])).length > 1);
  }
  function isOn(point, but) {
    return Object.entries(state.off).every(([name, values]) => name === but || !values.has(point[name]));
  }
  function isNow(point) { return point.step === null || state.step === null || point.step === state.step; }

  // A line is what differs in no dimension. Its colour stays when networks are switched off and on.
  function series(rows) {
    const names = varying(rows), short = varying(rows.filter((row) => isOn(row)));
    const key = (row, some) => some.map((name) => row[name] || "–").join(" · ");
    const keys = distinct(rows.filter((row) => isOn(row, "network")).map((row) => key(row, names)));
    for (const row of rows) {
      row.series = key(row, short) || row.network || "all";
      row.number = Math.max(0, keys.indexOf(key(row, names)));
      row.colour = data.colours[row.number % data.colours.length];
      row.shape = data.shapes[(row.number + Math.floor(row.number / data.colours.length)) % data.shapes.length];
    }
    return distinct(rows.filter((row) => isOn(row)).map((row) => row.series));
  }

  function told(row) {
    const interval = row.low === null || row.low === undefined ? "" : `  [${number(row.low)}, ${number(row.high)}]`;
    const lines = [row.layer, row.type, `${row.series}: ${number(row.value)}${interval}`];
    if (row.step !== null && row.step !== undefined) lines.push(moment(row));
    if (row.images !== null) lines.push(`${row.images} images` + (row.rms === null ? "" : `, ${number(row.rms)} px root mean square`));
    if (row.note) lines.push(row.note);
    return lines.filter(Boolean).join("\n");
  }
  function moment(row) { return `step ${row.step}` + (row.epoch === null ? "" : `, epoch ${row.epoch}`); }

  // ---- charts ----
  const tip = $("tip");
  function tooltip(handler, event, item, value) {
    if (!value || !item.datum || !item.datum.says) { tip.hidden = true; return; }
    tip.textContent = item.datum.says;
    tip.hidden = false;
    const box = tip.getBoundingClientRect();
    tip.style.left = `${Math.max(4, Math.min(event.clientX + 14, innerWidth - box.width - 4))}px`;
    tip.style.top = `${Math.max(4, Math.min(event.clientY + 14, innerHeight - box.height - 4))}px`;
  }
  const views = {};
  // Pixels of a layer: enough for its name and for what stands below each other in it.
  function height(sets) {
    const rows = sets.points || sets.cells;
    const layers = distinct(rows.map((row) => row.layer)).length, lines = sets.points ? distinct(rows.map((row) => row.number)).length : 1;
    const least = layers <= 40 ? 20 : layers <= 100 ? 14 : 10;
    return Math.max(least, Math.min(7 * lines + 6, 60, 3000 / layers));
  }
  function signals(name, sets) {
    const found = { y_step: height(sets) };
    // Colours reach to ten times and a tenth at most: what is farther from 1 has the last one.
    if (name === "heatmap_ratio") found.reach = Math.min(Math.log(10), Math.max(0.01, ...sets.cells.map((cell) => Math.abs(cell.shade))));
    return found;
  }
  // A chart is made with its first rows; later ones are put into it. One that is not the one to show
  // gives its place to the other. Calls wait for each other: two are never made for one place.
  let last = Promise.resolve();
  function show(place, name, sets) {
    last = last.then(() => shown(place, name, sets));
    return last;
  }
  async function shown(place, name, sets) {
    if (views[place] && views[place].name === name) {
      const { view } = views[place];
      for (const [set, rows] of Object.entries(sets)) view.data(set, rows);
      for (const [signal, value] of Object.entries(signals(name, sets))) view.signal(signal, value);
      return view.resize().runAsync();
    }
    if (views[place]) views[place].view.finalize();
    const spec = structuredClone(data.charts[name]);
    for (const [set, rows] of Object.entries(sets)) spec.data.find((each) => each.name === set).values = rows;
    for (const [signal, value] of Object.entries(signals(name, sets))) spec.signals.find((each) => each.name === signal).value = value;
    const options = { mode: "vega", renderer: "svg", actions: false, defaultStyle: false, tooltip };
    const { view } = await vegaEmbed($(place), spec, options);
    views[place] = { name, view };
    view.addEventListener("click", (event, item) => {
      if (item && item.datum && item.datum.layer !== undefined) choose(item.datum.layer);
    });
  }

  function drawProfile() {
    const ratio = data.measures[state.measure].ratio;
    const all = ofMeasure();
    series(all);
    const seen = all.filter((row) => isOn(row) && isNow(row));
    // A logarithmic axis has no place for what is not above 0; what rounding makes is drawn at 0.001.
    const fit = (value) => (value === null || !ratio ? value : value > 0 ? Math.max(value, 1e-3) : null);
    const rows = seen.map((row) => ({ ...row, value: fit(row.value), low: fit(row.low), high: fit(row.high), says: told(row) }));
    const layers = distinct(seen.map((row) => row.layer)).map((layer) => ({
      layer, order: seen.find((row) => row.layer === layer).order, selected: layer === state.layer,
    }));
    $("nothing").hidden = rows.length > 0;
    $("profile").hidden = rows.length === 0;
    if (!rows.length) return;
    if (!ratio) return show("profile", "profile", { points: rows, layers });
    return show("profile", "profile_ratio", { points: rows, layers, middle: [{ at: 1 }] });
  }

  const across = { [TRAINING]: "training" };
  function drawHeatmap() {
    const rows = ofMeasure().filter((row) => isOn(row));
    const found = [TRAINING, ...data.dimensions].filter((name) => {
      const values = distinct(rows.map((row) => row[name]).filter((value) => value !== null && value !== ""));
      return values.length > 1;
    });
    $("heatmap-section").hidden = found.length === 0;
    if (!found.length) return;
    options($("across"), found.map((name) => [name, across[name] || name]), $("across").value);
    const chosen = $("across").value;
    const rest = varying(rows).filter((name) => name !== chosen);
    const label = (row) => rest.map((name) => row[name] || "–").join(" · ");
    const labels = distinct(rows.map(label));
    options($("one-of"), labels.map((text) => [text, text]), $("one-of").value);
    $("one-of-label").hidden = labels.length < 2;
    const own = rows.filter((row) => label(row) === $("one-of").value && (chosen === TRAINING ? row.step !== null : isNow(row)));
    const values = distinct(own.map((row) => row[chosen]));
    if (chosen === TRAINING) values.sort((a, b) => a - b);
    const ratio = data.measures[state.measure].ratio;
    const cells = own.map((row) => ({
      ...row, says: told(row), column: String(row[chosen]), place: values.indexOf(row[chosen]),
      shade: row.value === null || (ratio && !(row.value > 0)) ? null : ratio ? Math.log(Math.max(row.value, 1e-3)) : row.value,
    })).filter((cell) => cell.shade !== null);
    $("heatmap").hidden = cells.length === 0;
    return cells.length ? show("heatmap", ratio ? "heatmap_ratio" : "heatmap", { cells }) : null;
  }

  // ---- what is shown ----
  function drawControls() {
    const rows = ofMeasure();
    const measure = data.measures[state.measure];
    $("meaning").textContent = measure.better + (measure.ratio ? " (logarithmic axis)" : "");
    $("filters").replaceChildren();
    for (const name of varying(rows)) {
      // Only what there is of what the others leave on.
      const values = distinct(rows.filter((row) => isOn(row, name)).map((row) => row[name]));
      if (!values.length) continue;
      const set = make("fieldset", null, $("filters"));
      make("legend", name, set);
      const off = (state.off[name] ||= new Set());
      for (const value of values) {
        const label = make("label", null, set);
        const box = make("input", null, label, { type: "checkbox", "data-dimension": name, value });
        box.checked = !off.has(value);
        box.addEventListener("change", () => {
          box.checked ? off.delete(value) : off.add(value);
          drawControls();
          const again = [...$("filters").querySelectorAll("input")].find((each) => each.dataset.dimension === name && each.value === value);
          if (again) again.focus();
          redraw();
        });
        label.append(` ${value || "–"}`);
      }
    }
    const steps = distinct(rows.filter((row) => isOn(row)).map((row) => row.step).filter((step) => step !== null)).sort((a, b) => a - b);
    $("time").hidden = steps.length < 2;
    if (steps.length && !steps.includes(state.step)) state.step = steps[steps.length - 1];
    $("step").max = Math.max(0, steps.length - 1);
    $("step").value = Math.max(0, steps.indexOf(state.step));
    $("step").oninput = () => { state.step = steps[$("step").value]; redraw(); };
  }
  function drawLegend() {
    const rows = ofMeasure(), labels = series(rows);
    $("legend").replaceChildren();
    if (labels.length === 1 && labels[0] === "all") return;
    const shapes = { circle: "M8 3a5 5 0 1 0 .01 0z", square: "M3 3h10v10H3z", diamond: "M8 1l6 7-6 7-6-7z",
      "triangle-up": "M8 2l7 12H1z", "triangle-down": "M8 14L1 2h14z", "triangle-right": "M14 8L2 15V1z",
      cross: "M6 1h4v5h5v4h-5v5H6v-5H1V6h5z" };
    for (const label of labels) {
      const row = rows.find((each) => each.series === label && isOn(each));
      const item = make("li", null, $("legend"));
      const svg = drawn("svg", { viewBox: "0 0 16 16", "aria-hidden": "true" }, item);
      drawn("path", { d: shapes[row.shape], fill: row.colour }, svg);
      make("span", label, item);
    }
  }
  function redraw() {
    const rows = ofMeasure();
    const now = rows.find((row) => row.step === state.step && row.step !== null);
    $("moment").textContent = now ? moment(now) : "";
    $("step").setAttribute("aria-valuetext", $("moment").textContent);
    drawLegend();
    drawDetails();
    return Promise.all([drawProfile(), drawHeatmap()]);
  }

  // ---- one layer ----
  function choose(layer) {
    state.layer = layer;
    $("layer").value = layer;
    drawDetails();
    drawImages();
    drawProfile();
  }
  function drawDetails() {
    $("details").replaceChildren();
    const rows = ofMeasure().filter((row) => row.layer === state.layer && isOn(row) && isNow(row));
    if (!rows.length) return;
    const type = rows.find((row) => row.type);
    if (type) make("p", `${type.type}`, $("details"), { class: "hint" });
    const table = make("table", null, $("details"));
    const head = make("tr", null, make("thead", null, table));
    for (const name of ["", "value", "low", "high"]) make("th", name, head, { scope: "col" });
    const body = make("tbody", null, table);
    for (const row of rows) {
      const line = make("tr", null, body);
      make("th", row.series === "all" ? data.measures[state.measure].name : row.series, line, { scope: "row" });
      for (const name of ["value", "low", "high"]) make("td", number(row[name]), line, { class: "number" });
      if (row.note) make("td", row.note, make("tr", null, body), { colspan: 4 });
    }
  }
  const TITLES = {
    most: "The images it is most sensitive to",
    worst: "The worst deformation found for them",
    least: "The images it is least sensitive to",
  };
  function drawImages() {
    $("images").replaceChildren();
    for (const [network, examples] of Object.entries(data.examples)) {
      const groups = examples.layers[state.layer];
      for (const [name, title] of Object.entries(TITLES)) {
        if (!groups || !(groups[name] || []).length) continue;
        make("h3", network ? `${title} · ${network}` : title, $("images"));
        const group = make("div", null, $("images"), { class: "group", "data-group": name });
        for (const each of groups[name]) drawExample(each, examples.pictures, group);
      }
    }
    const some = Object.values(data.examples).flatMap((each) => Object.keys(each.layers));
    if (!$("images").childElementCount && some.length)
      make("p", `No images of this layer; there are of ${distinct(some).join(", ")}.`, $("images"), { class: "hint" });
  }
  function drawExample(each, pictures, group) {
    const figure = make("figure", null, group, { class: "example" });
    const [width, height] = each.size;
    const panels = [["as it is", each.before, 1], ["deformed", each.after, 1], ["flow", each.after, each.arrows ? 0.35 : 0]];
    for (const [what, picture, opacity] of panels) {
      const part = make("div", null, figure);
      if (!opacity) { make("span", "flow not known", part, { class: "what" }); continue; }
      const svg = drawn("svg", { viewBox: `-0.5 -0.5 ${width} ${height}`, role: "img", "aria-label": `image ${each.image}, ${what}` }, part);
      const image = drawn("image", { x: -0.5, y: -0.5, width, height, opacity, href: pictures[picture], preserveAspectRatio: "none" }, svg);
      if (Math.max(width, height) <= 64) image.setAttribute("class", "small");
      if (what === "flow") for (const line of each.arrows) drawArrow(svg, line, Math.max(width, height));
      make("span", what, part, { class: "what" });
    }
    const rms = each.rms === undefined || each.rms === null ? "" : `; pixels move ${number(each.rms)} px (root mean square)`;
    make("figcaption", `image ${each.image}: distance ${number(each.distance)}, ${number(each.sensitivity)} of that between images${rms}`, figure);
  }
  function drawArrow(svg, [x0, y0, x1, y1], side) {
    const dx = x1 - x0, dy = y1 - y0, length = Math.hypot(dx, dy), size = Math.min(side / 45, 0.6 * length);
    if (!length) return;
    const style = { stroke: "#0072b2", "stroke-width": side / 160, fill: "none", "stroke-linecap": "round" };
    const [ux, uy] = [dx / length, dy / length];
    const head = `M${x1 - size * (ux + 0.6 * uy)} ${y1 - size * (uy - 0.6 * ux)}L${x1} ${y1}L${x1 - size * (ux - 0.6 * uy)} ${y1 - size * (uy + 0.6 * ux)}`;
    drawn("path", { d: `M${x0} ${y0}L${x1} ${y1}${head}`, ...style }, svg);
  }

  // ---- tables ----
  function parsed(text) {
    const rows = [[""]];
    let quoted = false;
    for (let place = 0; place < text.length; place++) {
      const letter = text[place], row = rows[rows.length - 1];
      if (quoted && letter === '"' && text[place + 1] === '"') row[row.length - 1] += text[++place];
      else if (letter === '"') quoted = !quoted;
      else if (!quoted && letter === ",") row.push("");
      else if (!quoted && letter === "\n") rows.push([""]);
      else row[row.length - 1] += letter;
    }
    rows.pop();  // behind the last line
    return { head: rows[0], rows: rows.slice(1) };
  }
  function chosenTable() {
    const table = data.tables[$("table").value];
    return (table.parsed ||= parsed(table.text));
  }
  function drawTable() {
    const table = chosenTable(), head = table.head, [thead, tbody] = $("rows").children;
    const wanted = $("search").value.trim().toLowerCase();
    let rows = table.rows.filter((row) => !wanted || row.some((text) => text.toLowerCase().includes(wanted)));
    if (state.sort !== null) {
      const key = (row) => row[state.sort];
      const numeric = rows.every((row) => key(row) === "" || !Number.isNaN(Number(key(row))));
      const less = numeric ? (a, b) => Number(a) - Number(b) : (a, b) => a.localeCompare(b);
      // What is empty comes last, up or down.
      rows = rows.slice().sort((a, b) => (key(a) === "") - (key(b) === "") || (state.down ? -1 : 1) * less(key(a), key(b)));
    }
    thead.replaceChildren();
    const line = make("tr", null, thead);
    for (const [place, name] of head.entries()) {
      const sorted = place === state.sort;
      const cell = make("th", null, line, { scope: "col", "aria-sort": sorted ? (state.down ? "descending" : "ascending") : "none" });
      const button = make("button", name + (sorted ? (state.down ? " ▼" : " ▲") : ""), cell, { type: "button", "data-column": name });
      button.addEventListener("click", () => {
        state.down = sorted && !state.down;
        state.sort = place;
        drawTable();
        thead.querySelectorAll("button")[place].focus();
      });
    }
    const shown = state.all ? rows : rows.slice(0, MOST_ROWS);
    tbody.replaceChildren();
    for (const row of shown) {
      const line = make("tr", null, tbody);
      for (const text of row) {
        const value = Number(text);
        const isNumber = text !== "" && !Number.isNaN(value);
        const short = isNumber && text.length > 8 ? String(Number(value.toPrecision(4))) : text;
        const cell = make("td", short, line, isNumber ? { class: "number" } : {});
        if (short !== text) cell.title = text;
      }
    }
    $("count").textContent = `${rows.length} of ${table.rows.length} rows` + (shown.length < rows.length ? `, the first ${shown.length} shown` : "") + "; the file has all rows, unrounded.";
    $("more").hidden = shown.length === rows.length;
  }
  function download() {
    const table = data.tables[$("table").value];
    const address = URL.createObjectURL(new Blob([table.text], { type: "text/csv" }));
    const link = make("a", null, document.body, { href: address, download: table.file });
    link.click();
    link.remove();
    setTimeout(() => URL.revokeObjectURL(address), 10000);
  }

  // ---- the beginning ----
  function chooseMeasure() {
    state.measure = $("measure").value;
    state.off = {};
    const metrics = distinct(ofMeasure().map((row) => row.metric));
    // Two metrics have two scales: one is on at first.
    if (metrics.length > 1 && !data.measures[state.measure].ratio) state.off.metric = new Set(metrics.slice(1));
    // Of more lines than can be told apart, some are on at first, by what they differ in last.
    const lines = () => series(ofMeasure()).length;
    for (const name of varying(ofMeasure()).filter((each) => each !== "network").reverse()) {
      const values = distinct(ofMeasure().filter((row) => isOn(row)).map((row) => row[name]));
      if (lines() > MOST_LINES) (state.off[name] ||= new Set()), values.slice(1).forEach((value) => state.off[name].add(value));
    }
    const layers = distinct(ofMeasure().slice().sort((a, b) => a.order - b.order).map((row) => row.layer));
    if (!layers.includes(state.layer)) {
      const some = Object.values(data.examples).flatMap((each) => Object.keys(each.layers));
      state.layer = layers.find((layer) => some.includes(layer)) ?? layers[0];
    }
    options($("layer"), layers.map((layer) => [layer, layer]), state.layer);
    drawControls();
    drawImages();
    return redraw();
  }
  const measures = Object.entries(data.measures).filter(([key]) => points.some((point) => point.measure === key));
  options($("measure"), measures.map(([key, measure]) => [key, measure.name]));
  options($("table"), data.tables.map((table, place) => [String(place), table.name]));
  $("measure").addEventListener("change", chooseMeasure);
  $("layer").addEventListener("change", () => choose($("layer").value));
  $("across").addEventListener("change", drawHeatmap);
  $("one-of").addEventListener("change", drawHeatmap);
  $("table").addEventListener("change", () => { state.all = false; state.sort = null; drawTable(); });
  $("search").addEventListener("input", drawTable);
  $("more").addEventListener("click", () => { state.all = true; drawTable(); });
  $("download").addEventListener("click", download);
  drawTable();
  for (const id of measures.length ? [] : ["controls", "heatmap-section", "profile-section", "layer-section"]) $(id).hidden = true;
  Promise.resolve(measures.length ? chooseMeasure() : null).then(() => { document.body.dataset.ready = "yes"; });
})();

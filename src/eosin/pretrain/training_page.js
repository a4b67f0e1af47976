"use strict";
// Shows the values under the pointer, or step by step with the arrow keys.
const charts = JSON.parse(document.getElementById("data").textContent);
const create = (name, attributes) => {
  const made = document.createElementNS("http://www.w3.org/2000/svg", name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  return made;
};
const nearest = (updates, wanted) => {
  let low = 0, high = updates.length - 1;
  while (high - low > 1) {
    const middle = (low + high) >> 1;
    if (updates[middle] <= wanted) low = middle; else high = middle;
  }
  return Math.abs(updates[low] - wanted) <= Math.abs(updates[high] - wanted) ? low : high;
};
for (const svg of document.querySelectorAll("svg[data-chart]")) {
  const chart = charts[Number(svg.dataset.chart)];
  const [low, high] = chart.range;
  const reading = svg.parentElement.querySelector(".reading");
  const values = [...reading.querySelectorAll("b")];
  const marks = create("g", {});
  svg.append(marks);
  const longest = chart.series.reduce((a, b) => (b.updates.length > a.updates.length ? b : a));
  let index = longest.updates.length - 1;
  const show = (wanted) => {
    index = nearest(longest.updates, wanted);
    const update = longest.updates[index];
    const x = `${(100 * update) / chart.last}%`;
    marks.replaceChildren(create("line", {
      class: "cursor", x1: x, x2: x, y1: chart.top, y2: chart.top + chart.height,
    }));
    chart.series.forEach((series, number) => {
      const at = nearest(series.updates, update), value = series.values[at];
      const share = (value - low) / (high - low);
      marks.append(create("circle", {
        class: `point${number}`, r: 4,
        cx: `${(100 * series.updates[at]) / chart.last}%`,
        cy: chart.top + chart.height * (1 - share),
      }));
      values[number].textContent = `${Number(value.toPrecision(4))}${chart.unit}`;
    });
    reading.querySelector(".update").textContent = `update ${update.toLocaleString("en")}`;
  };
  const hide = () => {
    marks.replaceChildren();
    reading.querySelector(".update").textContent = "";
    for (const value of values) value.textContent = value.dataset.latest;
  };
  svg.addEventListener("pointermove", (event) => {
    const box = svg.getBoundingClientRect();
    show((chart.last * (event.clientX - box.left)) / box.width);
  });
  svg.addEventListener("pointerleave", hide);
  svg.addEventListener("blur", hide);
  svg.addEventListener("keydown", (event) => {
    const step = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
    if (step === undefined) return;
    event.preventDefault();
    index = Math.min(Math.max(index + step, 0), longest.updates.length - 1);
    show(longest.updates[index]);
  });
}

"use strict";
// A click on a heading sorts the comparison by it: largest first, then smallest first.
for (const table of document.querySelectorAll("table.sortable")) {
  const headings = [...table.tHead.rows[0].cells];
  headings.forEach((heading, column) => {
    const button = document.createElement("button");
    button.type = "button";
    button.append(...heading.childNodes);
    heading.append(button);
    button.addEventListener("click", () => {
      const ascending = heading.ariaSort === "descending";
      headings.forEach((each) => each.removeAttribute("aria-sort"));
      heading.ariaSort = ascending ? "ascending" : "descending";
      const body = table.tBodies[0];
      const key = (row) => Number(row.cells[column].dataset.value);
      const rows = [...body.rows].sort((a, b) => (ascending ? key(a) - key(b) : key(b) - key(a)));
      body.append(...rows);
    });
  });
}

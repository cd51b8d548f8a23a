for (const heading of document.querySelectorAll("table.sortable th")) {
  const sort = () => {
    const table = heading.closest("table"), body = table.tBodies[0], column = heading.cellIndex;
    const direction = heading.getAttribute("aria-sort") === "ascending" ? -1 : 1;
    for (const other of table.querySelectorAll("th")) other.removeAttribute("aria-sort");
    heading.setAttribute("aria-sort", direction === 1 ? "ascending" : "descending");
    const text = row => row.cells[column].textContent.trim();
    const number = row => { const found = parseFloat(text(row).replace(/,/g, "")); return Number.isFinite(found) ? found : Infinity; };
    const compare = heading.classList.contains("number")
      ? (one, other) => { const [a, b] = [number(one), number(other)]; return a === b ? 0 : a < b ? -direction : direction; }
      : (one, other) => direction * text(one).localeCompare(text(other), undefined, { numeric: true });
    body.append(...[...body.rows].sort(compare));
  };
  heading.tabIndex = 0;
  heading.classList.add("can-sort");
  heading.addEventListener("click", sort);
  heading.addEventListener("keydown", event => { if (event.key === "Enter" || event.key === " ") { event.preventDefault(); sort(); } });
}

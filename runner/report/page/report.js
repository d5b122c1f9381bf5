// Tables are complete without this script; it adds sorting, filtering and pages.
const { default: DataTable } = await import("data:text/javascript;base64," + library);

for (const table of document.querySelectorAll("table.data")) {
  const rows = table.tBodies[0].rows.length;
  const filters = table.dataset.filters === "true";
  new DataTable(table, {
    order: [],
    paging: rows > 50,
    pageLength: 25,
    lengthMenu: [25, 100, { label: "all", value: -1 }],
    info: rows > 10,
    searching: rows > 5,
    autoWidth: false,
    orderCellsTop: true,
    // Not searchDropdown: that takes answers, which sort by their time, for numbers.
    columnControl: filters ? [{ extend: "dropdown", icon: "search", content: ["searchText"] }] : [],
    layout: { topStart: "search", topEnd: rows > 50 ? "pageLength" : null },
    language: { search: "Filter", emptyTable: "Nothing to show." },
  });
}
document.documentElement.dataset.ready = "true";

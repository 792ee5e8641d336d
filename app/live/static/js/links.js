// Where else to look: what the server tells of, each as a link that leads to a page and nothing else.

import { address, byId, make } from "./dom.js";

const anchor = ({ title, url }, text = title) => {
  const href = address(url);
  return href === null ? null : make("a", { href, target: "_blank", rel: "noopener" }, String(text));
};

export function showLinks({ reports = [], links = [] }) {
  const there = reports.map((report) => anchor(report)).filter(Boolean);
  byId("reports").replaceChildren(...there.map((link) => make("li", {}, link)));
  byId("reports").hidden = there.length === 0;
  byId("no-reports").hidden = there.length > 0;
  byId("elsewhere").replaceChildren(...links.map((link) => anchor(link)).filter(Boolean));
}

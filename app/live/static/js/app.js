// The page: what the server tells goes to the figures, the charts, the pictures; what is clicked goes to the server.

import { Charts } from "./charts.js";
import { Controls } from "./controls.js";
import { byId, write } from "./dom.js";
import { follow } from "./feed.js";
import { Figures } from "./figures.js";
import { showLinks } from "./links.js";
import { listMarks, Marks } from "./marks.js";
import { clock } from "./numbers.js";
import { Samples } from "./samples.js";
import { Stampedes } from "./stampede.js";

const CLOCK_STEP_S = 30; // a sample older than the newest by more was not late: the server's clock was set back

const samples = new Samples();
const marks = new Marks();
const charts = new Charts(byId("charts"), samples, marks);
const figures = new Figures(byId("figures"));
const stampedes = new Stampedes();
const controls = new Controls();

function show() {
  const apps = samples.latest?.apps ?? {};
  const sampled = samples.at.length > 0;
  byId("waiting").hidden = sampled;
  byId("no-load").hidden = !sampled || samples.apps.some((app) => samples.has(app, "requests_s"));
  figures.update(apps);
  stampedes.name(apps);
  controls.running(apps.app?.mode);
  if (sampled) marks.prune(samples.at[0]);
  charts.update();
}

function mark(told) {
  if (!marks.add(told)) return;
  controls.follow(told.kind);
  byId("no-marks").hidden = true;
  listMarks(byId("marks"), marks.list);
}

follow(
  "/events",
  {
    hello: (hello) => {
      write(byId("version"), `${hello.version}`);
      controls.offer(hello.controls ?? null);
      showLinks(hello);
    },
    history: (history) => {
      for (const sample of history.samples ?? []) samples.add(sample);
      for (const told of history.marks ?? []) mark(told);
      if (samples.latest) show();
    },
    sample: (sample) => {
      if (sample.at < samples.at.at(-1) - CLOCK_STEP_S) samples.forget();
      if (samples.add(sample)) show();
    },
    mark: (told) => {
      mark(told);
      charts.update();
    },
    stampede: (stampede) => stampedes.add(stampede),
  },
  (state) => {
    const since = clock(Date.now() / 1_000);
    write(
      byId("connection"),
      { connecting: "connecting …", live: "live", lost: `connection lost at ${since}; trying again` }[state],
    );
    document.documentElement.dataset.connection = state;
  },
);

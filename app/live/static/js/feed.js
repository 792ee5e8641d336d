// The server's events. A browser connects again by itself when a stream breaks off, but neither when it is refused
// (a server that drains) nor when it falls silent (a server that hangs): then a new stream is begun here.

const SILENT_MS = 10_000;
const AGAIN_MS = 1_000;

// `handlers` has one function an event's name. `told` gets "connecting", "live" or "lost", each time it changes.
export function follow(url, handlers, told) {
  let source = null;
  let state = null;
  let silence = 0;

  const become = (next) => {
    if (next !== state) told((state = next));
  };
  const again = (wait) => {
    clearTimeout(silence);
    silence = setTimeout(begin, wait);
  };
  const lost = () => {
    become("lost");
    if (source.readyState === EventSource.CLOSED) again(AGAIN_MS);
  };

  function begin() {
    if (source) {
      source.close();
      lost();
    }
    source = new EventSource(url);
    again(SILENT_MS);
    source.addEventListener("error", lost);
    for (const [name, handle] of Object.entries(handlers)) {
      source.addEventListener(name, (event) => {
        become("live");
        again(SILENT_MS);
        try {
          handle(JSON.parse(event.data));
        } catch (error) {
          console.warn(`an event “${name}” could not be shown:`, error);
        }
      });
    }
  }

  become("connecting");
  begin();
}

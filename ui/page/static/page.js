// What htmx does not do by itself: keep long lists short, say when the connection is lost, send with Enter,
// and show a refusal where the form stands that was sent.
(() => {
  const MOST = { feed: 120, rounds: 60 }; // children; more would fill the browser over a night
  const byId = (id) => document.getElementById(id);

  function shorten() {
    const feed = byId("feed");
    const rounds = byId("rounds");
    while (feed && feed.children.length > MOST.feed) feed.firstElementChild.remove();
    while (rounds && rounds.children.length > MOST.rounds) rounds.lastElementChild.remove();
  }

  function toEnd() {
    const feed = byId("feed");
    if (feed) feed.scrollTop = feed.scrollHeight;
  }

  const offline = (is) => {
    const line = byId("offline");
    if (line) line.hidden = !is;
  };

  let rows = null;
  document.addEventListener("htmx:before:settle", (event) => {
    const feed = byId("feed");
    if (event.target === feed && feed.scrollHeight - feed.scrollTop - feed.clientHeight < 260) setTimeout(toEnd);
  });
  // hx-sse comes back by itself, but not where its first request fails, as in a reload while the server starts anew.
  let position = "";
  function again() {
    const stream = byId("stream");
    offline(true);
    setTimeout(() => {
      if (!stream?.isConnected || stream._htmx?.sse) return;
      if (position) stream.setAttribute("hx-sse:connect", stream.getAttribute("hx-sse:connect").replace(/[^=]*$/, position));
      htmx.process(stream, true);
    }, 700);
  }
  document.addEventListener("htmx:sse:after:connection", () => offline(false));
  document.addEventListener("htmx:sse:error", () => offline(true));
  document.addEventListener("htmx:sse:close", again);
  for (const name of ["htmx:error", "htmx:response:error"])
    document.addEventListener(name, (event) => event.target.id === "stream" && again());
  document.addEventListener("htmx:sse:after:message", (event) => {
    shorten();
    position = event.detail.message.id || position;
    const now = position.split("-")[1];
    if (rows !== null && now !== rows) document.body.dispatchEvent(new CustomEvent("ledger"));
    rows = now;
  });
  document.addEventListener("htmx:after:request", (event) => {
    if (event.detail.ctx.request.action?.endsWith("/say") && event.detail.ctx.response.status < 400) {
      byId("words").value = "";
      toEnd(); // and the answer, which the stream brings, is followed
      setTimeout(toEnd, 50);
    }
  });
  // A part that the stream fills would lose it with the next message; what is behind `details` there stays as it is.
  const staysIn = (form) => form && (form.closest("[hx-morph-skip]") || !form.closest("#live, #question"));
  document.addEventListener("htmx:before:request", (event) => {
    for (const old of event.target.closest("form")?.querySelectorAll(".said-line") ?? []) old.remove();
  });
  document.addEventListener("htmx:finally:request", (event) => {
    const { sourceElement: source, response } = event.detail.ctx;
    const form = source?.closest?.("form");
    const refusal = byId("said")?.querySelector(".wrong");
    if (!(response?.status >= 400) || !refusal || !staysIn(form)) return;
    if (source === form) form.append(refusal);
    else (source.closest(".buttons") ?? source).after(refusal);
    refusal.scrollIntoView({ block: "nearest" });
  });
  const showForm = ({ target }) => target.open && target.closest("#question") && target.scrollIntoView({ block: "nearest" });
  document.addEventListener("toggle", showForm, true);
  document.addEventListener("input", (event) => {
    if (event.target.id === "yaml") byId("by-hand").hidden = event.target.value === event.target.defaultValue;
  });
  document.addEventListener("keydown", (event) => {
    if (event.target.id === "words" && event.key === "Enter" && !event.shiftKey && !event.isComposing) {
      event.preventDefault();
      event.target.form.requestSubmit();
    }
  });
  document.addEventListener("DOMContentLoaded", toEnd);
})();

// The page is made by the server, as a whole. This keeps it as it is now: one stream brings
// its main part again when something has changed, and only what differs is touched, so that
// focus, selection and what is open stay. Without this script it is the same page, as of when
// it was loaded.
"use strict";

const main = document.getElementById("main");
const live = document.getElementById("live");
let stream = null;

document.documentElement.classList.add("script");

function say(text) {
	if (live.textContent !== text) live.textContent = text;
}

// open begins the stream of what this tab shows.
function open() {
	close();
	if (document.hidden) return;
	const view = location.pathname + location.search;
	stream = new EventSource("/live?view=" + encodeURIComponent(view));
	stream.addEventListener("open", () => say("live"));
	stream.addEventListener("main", (event) => {
		const end = event.data.indexOf("\n");
		document.title = event.data.slice(0, end) + " – nlb";
		show(event.data.slice(end + 1));
		say("live");
	});
	stream.addEventListener("error", () => {
		say("no connection to nlb run; trying again");
		// One that was refused does not try again by itself.
		if (stream && stream.readyState === EventSource.CLOSED) {
			close();
			setTimeout(() => { if (!stream) open(); }, 5000);
		}
	});
}

function close() {
	if (stream) stream.close();
	stream = null;
}

// show makes the main part be as this text says.
function show(text) {
	const next = new DOMParser().parseFromString("<main>" + text + "</main>", "text/html").querySelector("main");
	children(main, next);
}

// children makes the children of a node be as those of another one.
function children(now, next) {
	const wanted = Array.from(next.childNodes);
	wanted.forEach((want, i) => {
		const have = now.childNodes[i];
		if (!have) now.appendChild(want);
		else if (have.nodeType !== want.nodeType || have.nodeName !== want.nodeName || have.id !== want.id) now.replaceChild(want, have);
		else node(have, want);
	});
	while (now.childNodes.length > wanted.length) now.removeChild(now.lastChild);
}

// node makes one node be as another one of its kind.
function node(now, next) {
	if (now.nodeType === Node.TEXT_NODE) {
		if (now.data !== next.data) {
			now.data = next.data;
			fresh(now.parentElement);
		}
		return;
	}
	if (now.nodeType !== Node.ELEMENT_NODE || now === document.activeElement && now.nodeName === "INPUT") return;
	for (const a of Array.from(now.attributes)) {
		// What people have opened stays open.
		if (!next.hasAttribute(a.name) && a.name !== "open" && a.name !== "class") now.removeAttribute(a.name);
	}
	for (const a of Array.from(next.attributes)) {
		if (now.getAttribute(a.name) !== a.value) now.setAttribute(a.name, a.value);
	}
	children(now, next);
}

// fresh marks for a moment what has changed.
function fresh(element) {
	const cell = element && element.closest("td, li");
	if (!cell || cell.querySelector("time, svg")) return; // these change all the time
	cell.classList.remove("fresh");
	requestAnimationFrame(() => cell.classList.add("fresh"));
}

// A search goes along with what is typed.
let typing = 0;
main.addEventListener("input", (event) => {
	if (event.target.id !== "q") return;
	clearTimeout(typing);
	typing = setTimeout(() => {
		const text = event.target.value.trim();
		history.replaceState(null, "", text ? "/?q=" + encodeURIComponent(text) : "/");
		open();
	}, 200);
});
main.addEventListener("submit", (event) => event.preventDefault());

// Commands are copied.
main.addEventListener("click", (event) => {
	const button = event.target.closest("button[data-copy]");
	if (!button) return;
	copy(button.dataset.copy).then(() => say("copied"), () => say("cannot copy: mark the command by hand"));
});

function copy(text) {
	if (navigator.clipboard) return navigator.clipboard.writeText(text);
	// Without TLS browsers have the old way alone.
	const area = document.createElement("textarea");
	area.value = text;
	document.body.appendChild(area);
	area.select();
	const done = document.execCommand("copy");
	area.remove();
	return done ? Promise.resolve() : Promise.reject(new Error("refused"));
}

document.addEventListener("visibilitychange", () => {
	if (document.hidden) {
		close();
		say("paused while hidden");
	} else {
		open();
	}
});
window.addEventListener("pagehide", close);
// Not at once: a stream that begins while the page loads is a part of its loading, without end.
window.addEventListener("pageshow", () => setTimeout(open, 50));

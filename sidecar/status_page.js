
"use strict";
(() => {
	const every = 2000, said = document.getElementById("said");
	const button = document.createElement("button");
	let paused = false, busy = false;

	const say = text => {
		said.textContent = text;
		said.hidden = !text;
	};

	/* Whoever types or selects there keeps what is there. */
	const inUse = e => {
		const s = getSelection();
		return e.contains(document.activeElement) ||
			(s && !s.isCollapsed && s.containsNode(e, true));
	};

	const put = page => {
		document.title = page.title;
		for (const now of document.querySelectorAll("[data-live]")) {
			const then = page.getElementById(now.id);
			if (then && !inUse(now) && now.innerHTML !== then.innerHTML)
				now.replaceWith(document.adoptNode(then));
		}
	};

	const refresh = async () => {
		if (paused || busy || document.hidden)
			return;
		busy = true;
		const stop = new AbortController(), timer = setTimeout(() => stop.abort(), 10000);
		try {
			const answer = await fetch(location.href, { signal: stop.signal, cache: "no-store" });
			if (!answer.ok)
				throw new Error(`it answers ${answer.status}`);
			put(new DOMParser().parseFromString(await answer.text(), "text/html"));
			say("");
		} catch (e) {
			say(`The sidecar cannot be reached (${e.message}); this is what it told last.`);
		} finally {
			clearTimeout(timer);
			busy = false;
		}
	};

	const show = () => {
		button.textContent = paused ? "Go on" : "Pause";
		button.setAttribute("aria-pressed", paused);
	};
	button.type = "button";
	button.addEventListener("click", () => {
		paused = !paused;
		show();
		refresh();
	});
	show();
	document.getElementById("clock").append(button);
	document.addEventListener("visibilitychange", refresh);
	setInterval(refresh, every);
})();

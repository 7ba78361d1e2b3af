// Signs in with a token, or with the one-time code of the link that "trainer dashboard" prints.
const form = document.getElementById("form");
const token = document.getElementById("token");
const problem = document.getElementById("problem");

/** Only pages of this site; as whole addresses, because a path that begins with "//" names another host. */
function next() {
  try {
    const wanted = new URL(new URLSearchParams(location.search).get("next") ?? "/", location.origin);
    return wanted.origin === location.origin ? `${location.origin}${wanted.pathname}${wanted.search}` : "/";
  } catch { return "/"; }
}

async function signIn(request) {
  const response = await fetch("/session", { method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify(request) });
  if (response.ok) {
    location.replace(next());
  } else {
    problem.textContent = (await response.json().catch(() => null))?.error ?? `The coordinator answered ${response.status}.`;
    token.setAttribute("aria-invalid", "true");
    token.focus();
  }
}

form.addEventListener("submit", event => {
  event.preventDefault();
  problem.textContent = "";
  if (token.value.trim() === "") {
    problem.textContent = "Enter a token.";
    token.focus();
  } else {
    signIn({ token: token.value.trim() }).catch(() => { problem.textContent = "The coordinator does not answer."; });
  }
});

const code = new URLSearchParams(location.hash.slice(1)).get("code");
if (code) {
  history.replaceState(null, "", location.pathname + location.search);
  signIn({ code }).catch(() => { problem.textContent = "The coordinator does not answer."; });
} else {
  // A link from another site arrives without the cookie; asked from here the session is there.
  fetch("/session").then(response => response.ok ? location.replace(next()) : token.focus()).catch(() => token.focus());
}

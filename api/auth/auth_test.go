package auth_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"testing"

	"github.com/wallcrawler/wallcrawler/api/auth"
	"github.com/wallcrawler/wallcrawler/state"
)

const (
	secretA = auth.Secret("canary-secret-alpha-0123456789ab")
	secretB = auth.Secret("canary-secret-bravo-0123456789ab")
)

func TestSecretShowsItselfToReveal(t *testing.T) {
	const canary = "canary-in-a-secret"
	s := auth.Secret(canary)
	if s.Reveal() != canary {
		t.Fatal("Reveal does not give the text")
	}
	type holder struct {
		S auth.Secret
		P *auth.Secret
		M map[string]auth.Secret
	}
	h := holder{S: s, P: &s, M: map[string]auth.Secret{"k": s}}
	var shown bytes.Buffer
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%X", "%d", "%10s", "%T"} {
		fmt.Fprintf(&shown, verb+"\n", s)
		fmt.Fprintf(&shown, verb+"\n", []auth.Secret{s})
		fmt.Fprintf(&shown, verb+"\n", h)
	}
	if err := json.NewEncoder(&shown).Encode(h); err != nil {
		t.Fatal(err)
	}
	for _, handler := range []slog.Handler{slog.NewTextHandler(&shown, nil), slog.NewJSONHandler(&shown, nil)} {
		slog.New(handler).Info("shown", "secret", s, "holder", h, "list", []auth.Secret{s})
	}
	for _, form := range []string{canary, fmt.Sprintf("%x", canary), fmt.Sprintf("%X", canary)} {
		if strings.Contains(shown.String(), form) {
			t.Errorf("the secret shows:\n%s", shown.String())
		}
	}
	if !strings.Contains(shown.String(), "[redacted]") {
		t.Error("nothing says that something was hidden")
	}
}

func newContainerKeys(t *testing.T, current auth.Secret, previous ...auth.Secret) *auth.ContainerKeys {
	t.Helper()
	keys, err := auth.NewContainerKeys(current, previous...)
	if err != nil {
		t.Fatal(err)
	}
	return keys
}

func TestContainerTokenOpensItsOwnContainerOnly(t *testing.T) {
	keys := newContainerKeys(t, secretA)
	const n = 30
	for i := range n {
		token := keys.Token(fmt.Sprintf("cnt_%d", i))
		for j := range n {
			err := keys.Verify(fmt.Sprintf("cnt_%d", j), token)
			if (err == nil) != (i == j) {
				t.Fatalf("container %d's token for container %d: %v", i, j, err)
			}
			if err != nil && !errors.Is(err, state.ErrUnauthorized) {
				t.Fatalf("got %v, want ErrUnauthorized", err)
			}
		}
	}
}

func TestContainerTokenIsDerivedAndSurvivesRotation(t *testing.T) {
	before, after := newContainerKeys(t, secretA), newContainerKeys(t, secretB, secretA)
	token := before.Token("cnt_1")
	if token != newContainerKeys(t, secretA).Token("cnt_1") {
		t.Error("two replicas derive different tokens")
	}
	if err := after.Verify("cnt_1", token); err != nil {
		t.Errorf("a token under the previous key: %v", err)
	}
	if after.Token("cnt_1") == token || after.KeyID() == before.KeyID() {
		t.Error("the new key is not used for new tokens")
	}
	if err := newContainerKeys(t, secretB).Verify("cnt_1", token); !errors.Is(err, state.ErrUnauthorized) {
		t.Errorf("a token under a forgotten key: %v", err)
	}
	if strings.Contains(token, secretA.Reveal()) {
		t.Error("the token holds the secret")
	}
}

func TestContainerTokensThatAreRefused(t *testing.T) {
	keys := newContainerKeys(t, secretA)
	good := keys.Token("cnt_1")
	parts := strings.Split(good, ".")
	bad := []string{"", ".", "..", "wct1", "wct1..", parts[0] + "." + parts[1] + ".", parts[2],
		"wct2." + parts[1] + "." + parts[2], parts[0] + ".00000000." + parts[2], parts[0] + ".." + parts[2],
		good + ".", good + "=", good + " ", " " + good, strings.ToUpper(good), good[:len(good)-1],
		good + strings.Repeat("A", 1<<20), strings.Repeat(".", 1<<20), keys.LinkSecret("cnt_1", "boot"),
		parts[0] + "." + parts[1] + "." + keys.LinkSecret("cnt_1", "boot")}
	for i := range good {
		flipped := []byte(good)
		flipped[i] ^= 1
		bad = append(bad, string(flipped))
	}
	for _, token := range bad {
		if err := keys.Verify("cnt_1", token); !errors.Is(err, state.ErrUnauthorized) {
			t.Errorf("token %.80q: got %v, want ErrUnauthorized", token, err)
		}
	}
}

func TestLinkSecretsDiffer(t *testing.T) {
	keys := newContainerKeys(t, secretA)
	seen := map[string]string{}
	for _, pair := range [][2]string{{"a", "b"}, {"a", "c"}, {"b", "b"}, {"ab", ""}, {"", "ab"}, {"a", ""}} {
		secret := keys.LinkSecret(pair[0], pair[1])
		if other, taken := seen[secret]; taken {
			t.Errorf("%v and %s have one secret", pair, other)
		}
		seen[secret] = fmt.Sprint(pair)
	}
	if keys.LinkSecret("a", "b") != newContainerKeys(t, secretA).LinkSecret("a", "b") {
		t.Error("two replicas derive different link secrets")
	}
}

func TestShortSecretsAreRefused(t *testing.T) {
	for _, secret := range []auth.Secret{"", "canary-short"} {
		_, errContainers := auth.NewContainerKeys(secretA, secret)
		_, errTokens := auth.NewTokens(secret)
		for _, err := range []error{errContainers, errTokens} {
			if err == nil {
				t.Errorf("a secret of %d bytes was taken", len(secret))
			} else if strings.Contains(err.Error(), "canary") {
				t.Errorf("the error quotes the secret: %v", err)
			}
		}
	}
}

func TestParseKeys(t *testing.T) {
	parsed, err := auth.ParseKeys(" key-one , alice:key-two,bob:with:colon ")
	if err != nil {
		t.Fatal(err)
	}
	keys, err := auth.NewKeys(parsed...)
	if err != nil {
		t.Fatal(err)
	}
	for key, want := range map[string]string{
		"key-one": "key_9b346041bc9a", "key-two": "alice", "with:colon": "bob",
		"alice:key-two": "", "key-tw": "", "key-twoo": "", "": "",
	} {
		user, known := keys.User(auth.Secret(key))
		if known != (want != "") || (known && user != want) {
			t.Errorf("User(%q) = %q, %v; want %q", key, user, known, want)
		}
	}
	if keys.Len() != 3 {
		t.Errorf("Len = %d, want 3", keys.Len())
	}
	if none, err := auth.ParseKeys(" "); err != nil || len(none) != 0 {
		t.Errorf("no text: %v, %v", none, err)
	}
}

func TestKeysThatAreRefused(t *testing.T) {
	for name, text := range map[string]string{
		"an empty one in the middle": "canary-a,,canary-b", "an empty name": ":canary-a", "an empty key": "alice:",
		"a name with a space": "al ice:canary-a", "a key with a space": "canary a", "a key not in ASCII": "canary-ä",
		"too long": strings.Repeat("canary", 100),
	} {
		_, err := auth.ParseKeys(text)
		if err == nil {
			t.Errorf("%s: taken", name)
		} else if strings.Contains(err.Error(), "canary") {
			t.Errorf("%s: the error quotes the key: %v", name, err)
		}
	}
	if _, err := auth.NewKeys(auth.Key{Key: "same"}, auth.Key{Key: "same", Name: "other"}); err == nil {
		t.Error("one key for two users: taken")
	}
}

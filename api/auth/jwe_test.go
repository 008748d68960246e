package auth_test

import (
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"

	"github.com/wallcrawler/wallcrawler/api/auth"
	"github.com/wallcrawler/wallcrawler/state"
)

func newJWE(t testing.TB, at time.Time, current auth.Secret, previous ...auth.Secret) *auth.JWE {
	t.Helper()
	jwe, err := auth.NewJWE(current, previous...)
	if err != nil {
		t.Fatal(err)
	}
	return jwe.WithClock(func() time.Time { return at })
}

func TestJWERoundTrip(t *testing.T) {
	raw, err := newJWE(t, noon, secretA).Mint("ses_1", "alice", noon.Add(time.Hour))
	if err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		jwe  *auth.JWE
		good bool
	}{
		"the minter":                 {newJWE(t, noon, secretA), true},
		"after a rotation":           {newJWE(t, noon, secretB, secretA), true},
		"after two rotations":        {newJWE(t, noon, secretB), false},
		"29 s after its end":         {newJWE(t, noon.Add(time.Hour+29*time.Second), secretA), true},
		"30 s after its end":         {newJWE(t, noon.Add(time.Hour+30*time.Second), secretA), false},
		"a moment before 30 s after": {newJWE(t, noon.Add(time.Hour+29*time.Second+999*time.Millisecond), secretA), true},
		"30 s before it was made":    {newJWE(t, noon.Add(-30*time.Second), secretA), true},
		"31 s before it was made":    {newJWE(t, noon.Add(-31*time.Second), secretA), false},
	} {
		claims, err := c.jwe.Verify(raw)
		switch {
		case c.good && (err != nil || claims.SessionID != "ses_1" || claims.UserID != "alice" || !claims.Expires.Equal(noon.Add(time.Hour))):
			t.Errorf("%s: got %+v, %v", name, claims, err)
		case !c.good && !errors.Is(err, state.ErrUnauthorized):
			t.Errorf("%s: got %+v, %v, want ErrUnauthorized", name, claims, err)
		}
	}
}

func TestJWEIsNeverMintedAlike(t *testing.T) {
	jwe := newJWE(t, noon, secretA)
	seen := map[string]bool{}
	for range 100 {
		raw, err := jwe.Mint("ses_1", "alice", noon.Add(time.Hour))
		if err != nil {
			t.Fatal(err)
		}
		nonce := strings.Split(raw, ".")[2]
		if seen[nonce] {
			t.Fatal("a nonce was used twice")
		}
		seen[nonce] = true
	}
}

func TestJWEMintRefusesWhatVerifyWould(t *testing.T) {
	jwe := newJWE(t, noon, secretA)
	for _, c := range []struct {
		id, user string
		expires  time.Time
	}{
		{"", "alice", noon}, {"a/b", "alice", noon}, {"ses_1", "", noon}, {"ses_1", strings.Repeat("a", 257), noon},
		{"ses_1", "alice", time.Time{}}, {"ses_1", "alice", time.Date(10000, 1, 1, 0, 0, 0, 0, time.UTC)},
	} {
		if _, err := jwe.Mint(c.id, c.user, c.expires); !errors.Is(err, state.ErrInvalid) {
			t.Errorf("Mint(%q, %.10q, %v): %v", c.id, c.user, c.expires, err)
		}
	}
}

func TestShortJWESecretsAreRefused(t *testing.T) {
	for _, secrets := range [][]auth.Secret{{""}, {"canary-short"}, {secretA, "canary-short"}} {
		if _, err := auth.NewJWE(secrets[0], secrets[1:]...); err == nil || strings.Contains(err.Error(), "canary") {
			t.Errorf("a short secret: %v", err)
		}
	}
}

// TestEveryByteOfAJWECounts changes each character of a good token, and cuts it everywhere.
func TestEveryByteOfAJWECounts(t *testing.T) {
	jwe := newJWE(t, noon, secretA)
	raw, err := jwe.Mint("ses_1", "alice", noon.Add(time.Hour))
	if err != nil {
		t.Fatal(err)
	}
	_, first := jwe.Verify("")
	for i := range raw {
		changed := []byte(raw)
		changed[i] ^= 1
		for _, bad := range []string{string(changed), raw[:i], raw[:i] + "\n" + raw[i:], raw[:i] + "." + raw[i:]} {
			claims, err := jwe.Verify(bad)
			if !errors.Is(err, state.ErrUnauthorized) || claims != (auth.Claims{}) {
				t.Fatalf("byte %d: got %+v, %v", i, claims, err)
			}
			if err.Error() != first.Error() {
				t.Fatalf("byte %d: says %q, others %q", i, err, first)
			}
		}
	}
}

func TestGateGoesByTheNumberOfSegments(t *testing.T) {
	tokens, jwe := newTokens(t, noon, secretA), newJWE(t, noon, secretA)
	signed, err := tokens.Mint("ses_1", "alice", noon.Add(time.Hour))
	if err != nil {
		t.Fatal(err)
	}
	sealed, err := jwe.Mint("ses_1", "alice", noon.Add(time.Hour))
	if err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		gate           auth.Gate
		signed, sealed bool
	}{
		"both":           {auth.Gate{Signed: tokens, Encrypted: jwe, Minter: jwe}, true, true},
		"signed only":    {auth.Gate{Signed: tokens, Minter: tokens}, true, false},
		"encrypted only": {auth.Gate{Encrypted: jwe, Minter: jwe}, false, true},
		"exchanged":      {auth.Gate{Signed: jwe, Encrypted: tokens, Minter: jwe}, false, false},
	} {
		for raw, want := range map[string]bool{signed: c.signed, sealed: c.sealed, "": false, "a": false, "a.b": false, "a.b.c.d": false,
			strings.Repeat(".", 1<<20): false, signed + "..": false} {
			if _, err := c.gate.Verify(raw); (err == nil) != want || err != nil && !errors.Is(err, state.ErrUnauthorized) {
				t.Errorf("%s: %.20q: %v, want good: %v", name, raw, err, want)
			}
		}
	}
}

func TestGateCounts(t *testing.T) {
	registry := prometheus.NewRegistry()
	metrics, err := auth.NewMetrics(registry)
	if err != nil {
		t.Fatal(err)
	}
	jwe := newJWE(t, noon, secretA)
	raw, err := jwe.Mint("ses_1", "alice", noon.Add(time.Hour))
	if err != nil {
		t.Fatal(err)
	}
	gate := auth.Gate{Encrypted: jwe, Minter: jwe, Metrics: metrics}
	for _, token := range []string{raw, raw, raw + "A", "a.b.c", "x"} {
		_, _ = gate.Verify(token)
	}
	const want = `
# HELP wallcrawler_auth_tokens_total Session tokens checked, by kind and result.
# TYPE wallcrawler_auth_tokens_total counter
wallcrawler_auth_tokens_total{kind="encrypted",result="good"} 2
wallcrawler_auth_tokens_total{kind="encrypted",result="refused"} 1
wallcrawler_auth_tokens_total{kind="other",result="good"} 0
wallcrawler_auth_tokens_total{kind="other",result="refused"} 1
wallcrawler_auth_tokens_total{kind="signed",result="good"} 0
wallcrawler_auth_tokens_total{kind="signed",result="refused"} 1
`
	if err := testutil.GatherAndCompare(registry, strings.NewReader(want), "wallcrawler_auth_tokens_total"); err != nil {
		t.Error(err)
	}
}

func FuzzJWE(f *testing.F) {
	g := readGolden(f)
	jwe := newJWE(f, time.Unix(g.Now, 0), g.Secret, g.Previous)
	good := map[string]bool{}
	for _, v := range g.Vectors {
		f.Add(v.Token)
		good[v.Token] = v.Good && v.Verifier == "JWE"
	}
	f.Fuzz(func(t *testing.T, raw string) {
		if claims, err := jwe.Verify(raw); err == nil && !good[raw] {
			t.Errorf("%q passed as %+v", raw, claims)
		}
	})
}

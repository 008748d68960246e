package auth_test

import (
	"context"
	"encoding/json"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"github.com/wallcrawler/wallcrawler/api/auth"
	"github.com/wallcrawler/wallcrawler/state"
)

// golden are tokens made by another implementation; testdata/gen makes the file.
type golden struct {
	Now      int64
	Secret   auth.Secret
	Previous auth.Secret
	Signing  auth.Secret
	Issuer   string
	JWKS     json.RawMessage
	Vectors  []vector
}

type vector struct {
	Name, Verifier, Token string
	Good                  bool
	SessionID, UserID     string
	Expires               int64
}

func readGolden(t testing.TB) golden {
	t.Helper()
	text, err := os.ReadFile("testdata/tokens.json")
	if err != nil {
		t.Fatal(err)
	}
	var g golden
	if err := json.Unmarshal(text, &g); err != nil {
		t.Fatal(err)
	}
	return g
}

func (g golden) clock() func() time.Time {
	return func() time.Time { return time.Unix(g.Now, 0) }
}

// verifiers makes one verifier for each kind of token.
func (g golden) verifiers(t testing.TB) map[string]auth.Verifier {
	t.Helper()
	jwe, err := auth.NewJWE(g.Secret, g.Previous)
	if err != nil {
		t.Fatal(err)
	}
	all := map[string]auth.Verifier{
		"JWE":   jwe.WithClock(g.clock()),
		"HS256": newTokens(t, time.Unix(g.Now, 0), g.Signing),
	}
	path := filepath.Join(t.TempDir(), "keys.json")
	if err := os.WriteFile(path, g.JWKS, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, alg := range auth.Algorithms() {
		keys, err := auth.OpenJWKS(t.Context(), auth.SecretConfig{Name: "jwks", Source: auth.KeySetFile(path)},
			auth.JWKSOptions{Algorithm: alg, Issuer: g.Issuer, Now: g.clock()})
		if err != nil {
			t.Fatal(err)
		}
		all[alg] = keys
	}
	return all
}

func TestGoldenTokens(t *testing.T) {
	g := readGolden(t)
	verifiers := g.verifiers(t)
	good, bad := 0, 0
	for _, v := range g.Vectors {
		claims, err := verifiers[v.Verifier].Verify(v.Token)
		if !v.Good {
			bad++
			if !errors.Is(err, state.ErrUnauthorized) || claims != (auth.Claims{}) {
				t.Errorf("%s, %s: got %+v, %v, want ErrUnauthorized", v.Verifier, v.Name, claims, err)
			}
			continue
		}
		good++
		want := auth.Claims{SessionID: v.SessionID, UserID: v.UserID, Expires: time.Unix(v.Expires, 0)}
		if err != nil || !claims.Expires.Equal(want.Expires) || claims.SessionID != want.SessionID || claims.UserID != want.UserID {
			t.Errorf("%s, %s: got %+v, %v, want %+v", v.Verifier, v.Name, claims, err, want)
		}
	}
	if good < 25 || bad < 90 {
		t.Errorf("only %d good and %d bad tokens", good, bad)
	}
}

// TestGoldenTokensOpenNoOtherDoor tries every good token as every other kind.
func TestGoldenTokensOpenNoOtherDoor(t *testing.T) {
	g := readGolden(t)
	for kind, verifier := range g.verifiers(t) {
		for _, v := range g.Vectors {
			if v.Verifier == kind || !v.Good {
				continue
			}
			if claims, err := verifier.Verify(v.Token); err == nil {
				t.Errorf("%s, %s passed as %s: %+v", v.Verifier, v.Name, kind, claims)
			}
		}
	}
}

// TestMintedTokenIsReadByJose needs node and the package that testdata/gen installs.
func TestMintedTokenIsReadByJose(t *testing.T) {
	if _, err := os.Stat("testdata/gen/node_modules/jose"); err != nil {
		t.Fatal("the npm package jose is not installed in testdata/gen: make setup installs it")
	}
	const secret = `{"JWE_SECRET":"canary-0123456789-abcdefgh"}`
	jwe, err := auth.NewJWE(secret)
	if err != nil {
		t.Fatal(err)
	}
	raw, err := jwe.Mint("ses_1", "alice", time.Now().Add(time.Hour))
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	command := exec.CommandContext(ctx, "node", "read.mjs", secret, raw)
	command.Dir = "testdata/gen"
	out, err := command.Output()
	if err != nil {
		t.Fatalf("jose does not read our token: %v", err)
	}
	var read struct {
		Payload struct {
			SessionID, UserID, Sub string
			BrowserOptions         map[string]any
			Iat, Exp               int64
		}
		ProtectedHeader map[string]string
	}
	if err := json.Unmarshal(out, &read); err != nil {
		t.Fatal(err)
	}
	p := read.Payload
	if p.SessionID != "ses_1" || p.UserID != "alice" || p.BrowserOptions == nil || p.Exp-p.Iat != 3600 {
		t.Errorf("jose reads %s", out)
	}
	if h := read.ProtectedHeader; len(h) != 2 || h["alg"] != "dir" || h["enc"] != "A256GCM" {
		t.Errorf("the header is %v", h)
	}
}

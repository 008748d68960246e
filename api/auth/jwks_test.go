package auth_test

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/golang-jwt/jwt/v5"

	"github.com/wallcrawler/wallcrawler/api/auth"
	"github.com/wallcrawler/wallcrawler/state"
)

// issuer signs tokens and publishes its keys.
type issuer struct {
	*httptest.Server

	mu    sync.Mutex // guards keys
	keys  map[string]*ecdsa.PrivateKey
	calls atomic.Int64
}

func newIssuer(t testing.TB, kids ...string) *issuer {
	t.Helper()
	s := &issuer{keys: map[string]*ecdsa.PrivateKey{}}
	for _, kid := range kids {
		s.add(t, kid)
	}
	s.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		s.calls.Add(1)
		s.mu.Lock()
		defer s.mu.Unlock()
		var list []map[string]string
		for kid, key := range s.keys {
			list = append(list, publicJWK(t, kid, key))
		}
		_ = json.NewEncoder(w).Encode(map[string]any{"keys": list})
	}))
	t.Cleanup(s.Close)
	return s
}

func publicJWK(t testing.TB, kid string, key *ecdsa.PrivateKey) map[string]string {
	t.Helper()
	point, err := key.PublicKey.Bytes()
	if err != nil {
		t.Fatal(err)
	}
	encode := base64.RawURLEncoding.EncodeToString
	return map[string]string{"kty": "EC", "crv": "P-256", "kid": kid, "x": encode(point[1:33]), "y": encode(point[33:])}
}

func (s *issuer) add(t testing.TB, kid string) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.keys[kid] = key
}

func (s *issuer) sign(t testing.TB, kid string) string {
	t.Helper()
	s.mu.Lock()
	defer s.mu.Unlock()
	token := jwt.NewWithClaims(jwt.SigningMethodES256, jwt.MapClaims{
		"sessionId": "ses_1", "userId": "alice", "aud": "wallcrawler", "exp": time.Now().Add(time.Hour).Unix(),
	})
	token.Header["kid"] = kid
	raw, err := token.SignedString(s.keys[kid])
	if err != nil {
		t.Fatal(err)
	}
	return raw
}

func (s *issuer) open(t testing.TB) *auth.JWKS {
	t.Helper()
	keys, err := auth.OpenJWKS(t.Context(), auth.SecretConfig{Name: "jwks", Source: auth.KeySetURL(s.URL), Retry: time.Millisecond},
		auth.JWKSOptions{Algorithm: "ES256"})
	if err != nil {
		t.Fatal(err)
	}
	return keys
}

func TestUnknownKidHasTheKeySetReadAgain(t *testing.T) {
	s := newIssuer(t, "one")
	keys := s.open(t)
	if claims, err := keys.Verify(s.sign(t, "one")); err != nil || claims.SessionID != "ses_1" || claims.UserID != "alice" {
		t.Fatalf("got %+v, %v", claims, err)
	}
	if s.calls.Load() != 1 {
		t.Errorf("%d readings before anything was unknown", s.calls.Load())
	}
	s.add(t, "two")
	if _, err := keys.Verify(s.sign(t, "two")); err != nil {
		t.Errorf("a key that was added: %v", err)
	}
	stray := newIssuer(t, "stray").sign(t, "stray")
	for range 200 {
		if _, err := keys.Verify(stray); !errors.Is(err, state.ErrUnauthorized) {
			t.Fatalf("a stranger's token: %v", err)
		}
	}
	if n := s.calls.Load(); n > 10 {
		t.Errorf("%d readings for unknown kids", n)
	}
	s.Close()
	if _, err := keys.Verify(s.sign(t, "two")); err != nil {
		t.Errorf("while the issuer is down: %v", err)
	}
}

func TestKeySetsThatAreRefused(t *testing.T) {
	s := newIssuer(t, "one")
	key, err := json.Marshal(publicJWK(t, "one", s.keys["one"]))
	if err != nil {
		t.Fatal(err)
	}
	good := string(key)
	edit := func(name, value string) string {
		var fields map[string]any
		if err := json.Unmarshal(key, &fields); err != nil {
			t.Fatal(err)
		}
		fields[name] = value
		text, err := json.Marshal(fields)
		if err != nil {
			t.Fatal(err)
		}
		return string(text)
	}
	point := base64.RawURLEncoding.EncodeToString(make([]byte, 32))
	for name, text := range map[string]string{
		"no JSON": "keys", "no keys": `{}`, "keys null": `{"keys":null}`, "empty": `{"keys":[]}`, "a list": "[" + good + "]",
		"for another algorithm": `{"keys":[` + edit("alg", "ES384") + `]}`, "for encryption": `{"keys":[` + edit("use", "enc") + `]}`,
		"on another curve": `{"keys":[` + edit("crv", "P-384") + `]}`, "not on the curve": `{"keys":[` + edit("y", point) + `]}`,
		"a short number": `{"keys":[` + edit("x", "AAAA") + `]}`, "no base64": `{"keys":[` + edit("x", "!") + `]}`,
		"a shared key": `{"keys":[{"kty":"oct","k":"` + point + `","kid":"one"}]}`, "one kid twice": `{"keys":[` + good + "," + good + `]}`,
		"too many": `{"keys":[` + strings.Repeat(good+",", 64) + good + `]}`, "too large": `{"keys":[` + good + `],"x":"` + strings.Repeat("x", 256<<10) + `"}`,
	} {
		server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, text) }))
		_, err := auth.OpenJWKS(t.Context(), auth.SecretConfig{Name: "jwks", Source: auth.KeySetURL(server.URL)}, auth.JWKSOptions{Algorithm: "ES256"})
		server.Close()
		if err == nil {
			t.Errorf("%s: taken", name)
		}
	}
	rsa := func(n, e string) string { return fmt.Sprintf(`{"keys":[{"kty":"RSA","n":%q,"e":%q}]}`, n, e) }
	encode := base64.RawURLEncoding.EncodeToString
	odd := func(size int) string {
		n := make([]byte, size)
		n[0], n[size-1] = 0xff, 1
		return encode(n)
	}
	for name, text := range map[string]string{
		"1024 bits": rsa(odd(128), "AQAB"), "16384 bits": rsa(odd(2048), "AQAB"), "even": rsa(encode(append([]byte{0xff}, make([]byte, 255)...)), "AQAB"),
		"exponent 1": rsa(odd(256), "AQ"), "even exponent": rsa(odd(256), "AQAA"), "no exponent": rsa(odd(256), ""), "long exponent": rsa(odd(256), "AQAAAAAB"),
	} {
		server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, text) }))
		_, err := auth.OpenJWKS(t.Context(), auth.SecretConfig{Name: "jwks", Source: auth.KeySetURL(server.URL)}, auth.JWKSOptions{Algorithm: "RS256"})
		server.Close()
		if err == nil {
			t.Errorf("RSA, %s: taken", name)
		}
	}
}

func TestKeySetURLs(t *testing.T) {
	for text, good := range map[string]bool{
		"https://issuer.example/keys": true, "https://issuer.example/keys?x=1": true, "http://127.0.0.1:1/keys": true, "http://localhost/keys": true,
		"http://[::1]:1/": true, "http://issuer.example/keys": false, "https://user:canary@issuer.example/": false, "https://issuer.example/#a": false,
		"ftp://issuer.example/": false, "file:///keys.json": false, "https:///keys": false, "keys.json": false, "http://127.0.0.1.issuer.example/": false,
	} {
		if err := auth.CheckKeySetURL(text); (err == nil) != good {
			t.Errorf("%s: %v", text, err)
		} else if err != nil && strings.Contains(err.Error(), "canary") {
			t.Errorf("the error quotes a password: %v", err)
		}
	}
}

func TestKeySetFollowsNoRedirect(t *testing.T) {
	s := newIssuer(t, "one")
	away := httptest.NewServer(http.RedirectHandler(s.URL, http.StatusFound))
	defer away.Close()
	if _, err := auth.KeySetURL(away.URL)(t.Context()); err == nil || s.calls.Load() != 0 {
		t.Errorf("followed: %v, %d calls", err, s.calls.Load())
	}
	slow := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() }))
	defer slow.Close()
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if _, err := auth.KeySetURL(slow.URL + "/?key=canary")(ctx); err == nil || strings.Contains(err.Error(), "canary") {
		t.Errorf("a slow issuer: %v", err)
	}
}

func TestAlgorithmsThatAreNotOffered(t *testing.T) {
	s := newIssuer(t, "one")
	for _, alg := range []string{"", "none", "HS256", "ES384", "PS256", "RS512", "dir"} {
		if _, err := auth.OpenJWKS(t.Context(), auth.SecretConfig{Name: "jwks", Source: auth.KeySetURL(s.URL)}, auth.JWKSOptions{Algorithm: alg}); err == nil {
			t.Errorf("%q: taken", alg)
		}
	}
}

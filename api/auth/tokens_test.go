package auth_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/golang-jwt/jwt/v5"

	"github.com/wallcrawler/wallcrawler/api/auth"
	"github.com/wallcrawler/wallcrawler/state"
)

var noon = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)

func newTokens(t testing.TB, at time.Time, current auth.Secret, previous ...auth.Secret) *auth.Tokens {
	t.Helper()
	tokens, err := auth.NewTokens(current, previous...)
	if err != nil {
		t.Fatal(err)
	}
	return tokens.WithClock(func() time.Time { return at })
}

// sign makes a token of any header and claims, as a forger with the key would.
func sign(header, claims string, key auth.Secret) string {
	text := base64.RawURLEncoding.EncodeToString([]byte(header)) + "." + base64.RawURLEncoding.EncodeToString([]byte(claims))
	mac := hmac.New(sha256.New, []byte(key))
	mac.Write([]byte(text))
	return text + "." + base64.RawURLEncoding.EncodeToString(mac.Sum(nil))
}

const goodHeader = `{"alg":"HS256","typ":"JWT"}`

func goodClaims(edit ...string) string {
	fields := map[string]string{
		"sessionId": `"ses_1"`, "userId": `"alice"`, "aud": `"wallcrawler"`,
		"exp": fmt.Sprint(noon.Add(time.Hour).Unix()), "iat": fmt.Sprint(noon.Unix()),
	}
	for i := 0; i < len(edit); i += 2 {
		fields[edit[i]] = edit[i+1]
	}
	var out []string
	for _, name := range []string{"sessionId", "userId", "aud", "exp", "iat", "nbf"} {
		if value := fields[name]; value != "" {
			out = append(out, fmt.Sprintf("%q:%s", name, value))
		}
	}
	return "{" + strings.Join(out, ",") + "}"
}

func TestTokenRoundTrip(t *testing.T) {
	tokens := newTokens(t, noon, secretA)
	raw, err := tokens.Mint("ses_1", "alice", noon.Add(time.Hour))
	if err != nil {
		t.Fatal(err)
	}
	want := auth.Claims{SessionID: "ses_1", UserID: "alice", Expires: noon.Add(time.Hour)}
	for name, verifier := range map[string]auth.Verifier{
		"the minter": tokens, "after a rotation": newTokens(t, noon, secretB, secretA),
		"29 s after its end":  newTokens(t, noon.Add(time.Hour+29*time.Second), secretA),
		"29 s before its iat": newTokens(t, noon.Add(-29*time.Second), secretA),
	} {
		got, err := verifier.Verify(raw)
		if err != nil || got.SessionID != want.SessionID || got.UserID != want.UserID || !got.Expires.Equal(want.Expires) {
			t.Errorf("%s: got %+v, %v", name, got, err)
		}
	}
	for name, verifier := range map[string]auth.Verifier{
		"another key":         newTokens(t, noon, secretB),
		"31 s after its end":  newTokens(t, noon.Add(time.Hour+31*time.Second), secretA),
		"31 s before its iat": newTokens(t, noon.Add(-31*time.Second), secretA),
	} {
		if _, err := verifier.Verify(raw); !errors.Is(err, state.ErrUnauthorized) {
			t.Errorf("%s: got %v, want ErrUnauthorized", name, err)
		}
	}
}

func TestMintRefusesWhatVerifyWould(t *testing.T) {
	tokens := newTokens(t, noon, secretA)
	for _, c := range []struct {
		id, user string
		expires  time.Time
	}{
		{"", "alice", noon}, {"a/b", "alice", noon}, {"ses_1", "", noon},
		{"ses_1", strings.Repeat("a", 257), noon}, {"ses_1", "alice", time.Time{}},
		{"ses_1", "alice", time.Date(10000, 1, 1, 0, 0, 0, 0, time.UTC)},
	} {
		if _, err := tokens.Mint(c.id, c.user, c.expires); !errors.Is(err, state.ErrInvalid) {
			t.Errorf("Mint(%q, %.10q, %v): %v", c.id, c.user, c.expires, err)
		}
	}
}

func TestGoodVariantsOfTokens(t *testing.T) {
	tokens := newTokens(t, noon, secretA)
	for name, raw := range map[string]string{
		"plain":                sign(goodHeader, goodClaims(), secretA),
		"no typ":               sign(`{"alg":"HS256"}`, goodClaims(), secretA),
		"a kid":                sign(`{"alg":"HS256","kid":"one"}`, goodClaims(), secretA),
		"no iat":               sign(goodHeader, goodClaims("iat", ""), secretA),
		"aud in a list":        sign(goodHeader, goodClaims("aud", `["x","wallcrawler"]`), secretA),
		"nbf now":              sign(goodHeader, goodClaims("nbf", fmt.Sprint(noon.Unix())), secretA),
		"an exp with fraction": sign(goodHeader, goodClaims("exp", fmt.Sprint(noon.Unix())+".5"), secretA),
	} {
		if _, err := tokens.Verify(raw); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func badTokens(t testing.TB) map[string]string {
	t.Helper()
	good := sign(goodHeader, goodClaims(), secretA)
	parts := strings.Split(good, ".")
	b64 := base64.RawURLEncoding.EncodeToString
	bad := map[string]string{
		"empty": "", "one dot": ".", "two dots": "..", "three dots": "...", "many dots": strings.Repeat(".", 8000),
		"a million dots": strings.Repeat(".", 1<<20), "no signature": parts[0] + "." + parts[1] + ".",
		"two segments": parts[0] + "." + parts[1], "four segments": good + "." + parts[2], "five segments": good + ".a.b",
		"signature of another": parts[0] + "." + parts[1] + "." + strings.Split(sign(goodHeader, goodClaims("userId", `"bob"`), secretA), ".")[2],
		"other key":            sign(goodHeader, goodClaims(), secretB), "too long": sign(goodHeader, goodClaims("userId", `"`+strings.Repeat("a", 9000)+`"`), secretA),
		"padded": parts[0] + "." + parts[1] + "." + parts[2] + "=", "leading space": " " + good, "trailing space": good + " ",
		"newline in the signature": parts[0] + "." + parts[1] + "." + parts[2][:10] + "\n" + parts[2][10:],
		"newline at the end":       good + "\n", "std base64": parts[0] + "." + parts[1] + "+/." + parts[2],
		"bearer inside": "Bearer " + good, "null byte": good + "\x00", "not ASCII": good + "é",
	}
	for _, header := range []string{
		`{"alg":"none"}`, `{"alg":"None"}`, `{"alg":""}`, `{}`, `{"typ":"JWT"}`, `{"alg":null}`, `{"alg":1}`, `{"alg":["HS256"]}`,
		`{"alg":"hs256"}`, `{"alg":"HS384"}`, `{"alg":"HS512"}`, `{"alg":"RS256"}`, `{"alg":"ES256"}`, `{"alg":"EdDSA"}`, `{"alg":"PS256"}`,
		`{"alg":"dir","enc":"A256GCM"}`, `{"alg":"HS256","zip":"DEF"}`, `{"alg":"HS256","crit":["exp"]}`, `{"alg":"HS256","b64":false}`,
		`{"alg":"HS256","jku":"http://127.0.0.1/"}`, `{"alg":"HS256","x5u":"http://127.0.0.1/"}`, `{"alg":"HS256","jwk":{}}`,
		`{"alg":"HS256","x5c":[]}`, `{"alg":"HS256","p2c":1000000000}`, `{"alg":"HS256","typ":"JWE"}`, `{"alg":"HS256","cty":"JWT"}`,
		`{"alg":"HS256","typ":1}`, `{"alg":"HS256"} {}`, `[]`, `null`, `"HS256"`, `{"alg":"HS256"`, `{`, "\x00", "{\"alg\":\"HS256\",\"kid\":{}}",
		`{"alg":"none","alg":"HS384"}`, ` `, `0`, `true`, `[{"alg":"HS256"}]`,
	} {
		bad["header "+header] = sign(header, goodClaims(), secretA)
		bad["unsigned header "+header] = b64([]byte(header)) + "." + parts[1] + "."
	}
	for _, edit := range [][2]string{
		{"exp", ""}, {"exp", `"soon"`}, {"exp", "0"}, {"exp", "-1"}, {"exp", "null"}, {"exp", "true"}, {"exp", "{}"}, {"exp", "1e300"}, {"exp", "253402300800"}, {"exp", "1"},
		{"exp", fmt.Sprint(noon.Add(-31 * time.Second).Unix())}, {"nbf", fmt.Sprint(noon.Add(31 * time.Second).Unix())}, {"nbf", `"x"`},
		{"iat", fmt.Sprint(noon.Add(31 * time.Second).Unix())}, {"iat", `"x"`}, {"aud", ""}, {"aud", `""`}, {"aud", `"other"`}, {"aud", `[]`}, {"aud", `["other"]`}, {"aud", "1"},
		{"sessionId", ""}, {"sessionId", `""`}, {"sessionId", `"../x"`}, {"sessionId", `"a b"`}, {"sessionId", "1"}, {"sessionId", "null"}, {"sessionId", `"ses_é"`},
		{"sessionId", `"` + strings.Repeat("a", 129) + `"`}, {"userId", ""}, {"userId", `""`}, {"userId", "1"}, {"userId", `"` + strings.Repeat("a", 257) + `"`},
	} {
		bad[fmt.Sprintf("claim %s = %.20s", edit[0], edit[1])] = sign(goodHeader, goodClaims(edit[0], edit[1]), secretA)
	}
	for _, claims := range []string{"", "{}", "[]", "null", "1", `"x"`, "{", goodClaims() + "x", goodClaims() + "{}"} {
		bad["claims "+claims] = sign(goodHeader, claims, secretA)
	}
	for i := 0; i < len(good); i += 3 {
		flipped := []byte(good)
		flipped[i] ^= 2
		bad[fmt.Sprintf("byte %d changed", i)] = string(flipped)
		bad[fmt.Sprintf("cut at %d", i)] = good[:i]
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	claims := jwt.MapClaims{"sessionId": "ses_1", "userId": "alice", "aud": "wallcrawler", "exp": noon.Add(time.Hour).Unix()}
	for method, key := range map[jwt.SigningMethod]any{
		jwt.SigningMethodES256: key, jwt.SigningMethodNone: jwt.UnsafeAllowNoneSignatureType,
		jwt.SigningMethodHS384: []byte(secretA), jwt.SigningMethodHS512: []byte(secretA),
	} {
		raw, err := jwt.NewWithClaims(method, claims).SignedString(key)
		if err != nil {
			t.Fatal(err)
		}
		bad["signed by "+method.Alg()] = raw
	}
	return bad
}

func TestBadTokensAreRefusedAlike(t *testing.T) {
	tokens := newTokens(t, noon, secretA)
	if _, err := tokens.Verify(sign(goodHeader, goodClaims(), secretA)); err != nil {
		t.Fatalf("the token that the bad ones are made of: %v", err)
	}
	bad := badTokens(t)
	if len(bad) < 200 {
		t.Fatalf("only %d bad tokens", len(bad))
	}
	_, first := tokens.Verify("")
	for name, raw := range bad {
		claims, err := tokens.Verify(raw)
		if !errors.Is(err, state.ErrUnauthorized) || claims != (auth.Claims{}) {
			t.Errorf("%.60s: got %+v, %v", name, claims, err)
			continue
		}
		if err.Error() != first.Error() {
			t.Errorf("%.60s: says %q, others %q", name, err, first)
		}
	}
}

func TestEverySessionsTokenNamesThatSessionOnly(t *testing.T) {
	tokens := newTokens(t, noon, secretA)
	for i := range 20 {
		id := fmt.Sprintf("ses_%d", i)
		raw, err := tokens.Mint(id, "alice", noon.Add(time.Minute))
		if err != nil {
			t.Fatal(err)
		}
		if claims, err := tokens.Verify(raw); err != nil || claims.SessionID != id {
			t.Errorf("%s: got %+v, %v", id, claims, err)
		}
	}
}

func FuzzToken(f *testing.F) {
	for _, raw := range badTokens(f) {
		if len(raw) < 1<<16 {
			f.Add(raw)
		}
	}
	good := sign(goodHeader, goodClaims(), secretA)
	f.Add(good)
	tokens := newTokens(f, noon, secretA)
	containers, err := auth.NewContainerKeys(secretA)
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, raw string) {
		// Nobody without the key makes a token; a good one is among the seeds.
		if claims, err := tokens.Verify(raw); err == nil && raw != good {
			t.Errorf("%q passed as %+v", raw, claims)
		}
		if containers.Verify("cnt_1", raw) == nil && raw != containers.Token("cnt_1") {
			t.Errorf("%q passed as a container's token", raw)
		}
	})
}

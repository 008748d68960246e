package auth_test

import (
	"errors"
	"strings"
	"testing"

	"github.com/wallcrawler/wallcrawler/api/auth"
	"github.com/wallcrawler/wallcrawler/state"
)

func TestSharedToken(t *testing.T) {
	shared, err := auth.NewSharedToken(secretA)
	if err != nil {
		t.Fatal(err)
	}
	if err := shared.Verify(secretA); err != nil {
		t.Error(err)
	}
	var none *auth.SharedToken
	for name, err := range map[string]error{
		"another": shared.Verify(secretB), "none": shared.Verify(""), "longer": shared.Verify(secretA + "x"),
		"shorter": shared.Verify(secretA[:20]), "not configured": none.Verify(""), "not configured, one sent": none.Verify(secretA),
	} {
		if !errors.Is(err, state.ErrUnauthorized) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := auth.NewSharedToken("canary-short"); err == nil || strings.Contains(err.Error(), "canary") {
		t.Errorf("a short token: %v", err)
	}
}

func TestParseKeyList(t *testing.T) {
	for text, want := range map[auth.Secret]string{
		`{"API_KEYS":["a-key","b:key"]}`:        "a-key b:key",
		`{"API_KEYS":"[\"a-key\", \"b-key\"]"}`: "a-key b-key",
		` [ "a-key" ] `:                         "a-key",
		`{"API_KEYS":[],"OTHER":1}`:             "",
		"alice:a-key, b-key":                    "a-key b-key",
		`{"API_KEYS":{"a":"b"}}`:                "error",
		`{"API_KEYS":"a-key"}`:                  "error",
		`{"API_KEYS":"\"[\\\"a-key\\\"]\""}`:    "error",
		`{"api_keys":["a-key"]}`:                "error",
		`{"API_KEYS":null}`:                     "error",
		`{"API_KEYS":[null]}`:                   "error",
		`{"API_KEYS":[1]}`:                      "error",
		`{"API_KEYS":["a key"]}`:                "error",
		`{"API_KEYS":[""]}`:                     "error",
		`{"API_KEYS":["a-key"]`:                 "error",
		`[["a-key"]]`:                           "error",
		"":                                      "error",
		`{"API_KEYS":["` + auth.Secret(strings.Repeat("a", 513)) + `"]}`: "error",
	} {
		keys, err := auth.ParseKeyList(text)
		var got []string
		for _, key := range keys {
			got = append(got, key.Key.Reveal())
		}
		if err != nil && strings.Contains(err.Error(), "a-key") {
			t.Errorf("%s: the error quotes a key: %v", text.Reveal(), err)
		}
		if (err != nil) != (want == "error") || err == nil && strings.Join(got, " ") != want {
			t.Errorf("%s: got %q, %v, want %q", text.Reveal(), got, err, want)
		}
	}
}

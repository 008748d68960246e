package auth

import (
	"crypto/sha256"
	"fmt"
	"testing"
	"time"
)

func TestGoodTokensAreRememberedWhileTheyAreGood(t *testing.T) {
	now := time.Unix(1000, 0)
	v := &verified{now: func() time.Time { return now }}
	first, second := new(int), new(int) // two sets of keys
	digest := sha256.Sum256([]byte("token"))
	want := Claims{SessionID: "ses_1", UserID: "alice", Expires: now.Add(time.Minute)}
	if _, ok := v.find(first, digest); ok {
		t.Error("found before it was known")
	}
	v.add(first, digest, want)
	if got, ok := v.find(first, digest); !ok || got != want {
		t.Errorf("got %+v, %v", got, ok)
	}
	if _, ok := v.find(first, sha256.Sum256([]byte("tokeN"))); ok {
		t.Error("another spelling was found")
	}
	if _, ok := v.find(second, digest); ok {
		t.Error("found after the keys were changed")
	}
	now = want.Expires.Add(tokenLeeway)
	if _, ok := v.find(first, digest); ok {
		t.Error("found after it had expired")
	}
	now = time.Unix(1000, 0)
	v.add(second, sha256.Sum256([]byte("other")), want)
	if _, ok := v.find(first, digest); ok {
		t.Error("tokens under the former keys are kept")
	}
	for i := range 2 * maxVerified {
		v.add(second, sha256.Sum256(fmt.Append(nil, i)), want)
	}
	if n := len(v.tokens); n > maxVerified {
		t.Errorf("%d tokens are kept", n)
	}
}

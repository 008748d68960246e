// Package auth holds the credentials of the service: the keys of API users, the tokens that
// open sessions, and the tokens and secrets of containers. It proves who somebody is and
// nothing else; what they may do is decided by its callers.
//
// No error of this package quotes a credential.
package auth

import (
	"crypto/hkdf"
	"crypto/sha256"
	"errors"
	"fmt"
	"log/slog"
)

// redacted is what a Secret says of itself.
const redacted = "[redacted]"

// Secret is text that no log, error, dump or answer may show by accident. Only Reveal gives it.
// Keep it in exported fields: of unexported ones, fmt asks no methods and shows the text.
type Secret string

// Reveal gives the text itself.
func (s Secret) Reveal() string { return string(s) }

// String never gives the text.
func (Secret) String() string { return redacted }

// GoString never gives the text.
func (Secret) GoString() string { return redacted }

// Format never gives the text, whatever the verb.
func (Secret) Format(f fmt.State, _ rune) { _, _ = f.Write([]byte(redacted)) }

// MarshalText never gives the text. As the key of a map, JSON shows it all the same: use it
// as a value only.
func (Secret) MarshalText() ([]byte, error) { return []byte(redacted), nil }

// MarshalJSON never gives the text.
func (Secret) MarshalJSON() ([]byte, error) { return []byte(`"` + redacted + `"`), nil }

// LogValue never gives the text.
func (Secret) LogValue() slog.Value { return slog.StringValue(redacted) }

// MinSecret is the least length, in bytes, of a secret from which credentials are made.
const MinSecret = 16

// check refuses secrets that could be guessed.
func (s Secret) check(what string) error {
	if len(s) < MinSecret {
		return fmt.Errorf("%s has %d bytes: use at least %d random ones", what, len(s), MinSecret)
	}
	return nil
}

// derive makes a 32-byte key for one purpose, so that one secret may serve several.
func (s Secret) derive(label string) ([]byte, error) {
	key, err := hkdf.Key(sha256.New, []byte(s), nil, "wallcrawler/"+label, sha256.Size)
	if err != nil {
		return nil, errors.New("deriving a key: the secret is not usable under FIPS rules")
	}
	return key, nil
}

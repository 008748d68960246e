package auth

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"strings"
	"time"

	"github.com/golang-jwt/jwt/v5"

	"github.com/wallcrawler/wallcrawler/state"
)

const (
	// tokenAudience is the aud of every signed token.
	tokenAudience = "wallcrawler"
	// tokenLeeway forgives clocks that differ.
	tokenLeeway = 30 * time.Second
	// maxToken caps what is parsed at all, in bytes.
	maxToken = 8 << 10
	// maxUser bounds a user's name in a token, in bytes.
	maxUser = 256
)

// lastExpiry bounds exp, so that it is a time that every part can write down: the year 9999.
const lastExpiry = 253402300799

// Claims is what a good session token says.
type Claims struct {
	SessionID string
	UserID    string
	Expires   time.Time
}

// Verifier checks session tokens. Each kind of token is a Verifier of its own, chosen by
// configuration and never by the token. Every refusal is the same error, which wraps
// state.ErrUnauthorized.
type Verifier interface {
	Verify(raw string) (Claims, error)
}

// Tokens mints and verifies session tokens signed by HS256.
type Tokens struct {
	current []byte
	keys    jwt.VerificationKeySet
	parser  *jwt.Parser
	now     func() time.Time
}

var _ Verifier = (*Tokens)(nil)

// NewTokens signs with the current secret, as it is, and accepts tokens signed with it or a
// previous one.
func NewTokens(current Secret, previous ...Secret) (*Tokens, error) {
	t := &Tokens{current: []byte(current)}
	for _, secret := range append([]Secret{current}, previous...) {
		if err := secret.check("the secret for session tokens"); err != nil {
			return nil, err
		}
		t.keys.Keys = append(t.keys.Keys, []byte(secret))
	}
	return t.WithClock(time.Now), nil
}

// WithClock returns tokens under the same keys that tell the time by now.
func (t *Tokens) WithClock(now func() time.Time) *Tokens {
	return &Tokens{current: t.current, keys: t.keys, now: now, parser: jwt.NewParser(
		jwt.WithValidMethods([]string{jwt.SigningMethodHS256.Alg()}),
		jwt.WithStrictDecoding(),
		jwt.WithExpirationRequired(),
		jwt.WithIssuedAt(),
		jwt.WithAudience(tokenAudience),
		jwt.WithLeeway(tokenLeeway),
		jwt.WithTimeFunc(now),
	)}
}

type tokenClaims struct {
	SessionID string `json:"sessionId"`
	UserID    string `json:"userId"`
	jwt.RegisteredClaims
}

// Mint makes a token that opens one session, until expires.
func (t *Tokens) Mint(sessionID, userID string, expires time.Time) (string, error) {
	claims := tokenClaims{SessionID: sessionID, UserID: userID, RegisteredClaims: jwt.RegisteredClaims{
		Audience:  jwt.ClaimStrings{tokenAudience},
		IssuedAt:  jwt.NewNumericDate(t.now()),
		ExpiresAt: jwt.NewNumericDate(expires),
	}}
	if !claims.sound() {
		return "", fmt.Errorf("minting a token for session %q: %w", sessionID, state.ErrInvalid)
	}
	raw, err := jwt.NewWithClaims(jwt.SigningMethodHS256, claims).SignedString(t.current)
	if err != nil {
		return "", fmt.Errorf("minting a token for session %s: %w", sessionID, err)
	}
	return raw, nil
}

// Verify gives the claims of a good token.
func (t *Tokens) Verify(raw string) (Claims, error) {
	if !plainHS256(raw) {
		return Claims{}, refuseToken()
	}
	var claims tokenClaims
	_, err := t.parser.ParseWithClaims(raw, &claims, func(*jwt.Token) (any, error) { return t.keys, nil })
	if err != nil || !claims.sound() {
		return Claims{}, refuseToken()
	}
	return Claims{SessionID: claims.SessionID, UserID: claims.UserID, Expires: claims.ExpiresAt.Time}, nil
}

func (c *tokenClaims) sound() bool {
	exp := c.ExpiresAt
	return state.ValidID(c.SessionID) && c.UserID != "" && len(c.UserID) <= maxUser &&
		exp != nil && exp.Unix() > 0 && exp.Unix() <= lastExpiry
}

// refuseToken says the same of every bad token: which check it failed helps forgers only.
func refuseToken() error {
	return &state.Refusal{
		Err:     state.ErrUnauthorized,
		Message: "the session token is malformed, expired or not from here",
		Hint:    "use the connectUrl of POST or GET /v1/sessions; it holds a good one",
	}
}

// plainHS256 looks at a token's form before any of it is decoded at length: its size, three
// segments of strict base64url, and a header that asks for nothing but HS256. A header with
// any other wish (zip, crit, jku, x5u, jwk …) is refused, known or not.
func plainHS256(raw string) bool {
	if len(raw) > maxToken || strings.Count(raw, ".") != 2 {
		return false
	}
	encoding := base64.RawURLEncoding.Strict()
	var head []byte
	for i, segment := range strings.Split(raw, ".") {
		// The decoder skips line ends; nobody else does.
		if segment == "" || strings.ContainsAny(segment, "\r\n") {
			return false
		}
		decoded, err := encoding.DecodeString(segment)
		if err != nil {
			return false
		}
		if i == 0 {
			head = decoded
		}
	}
	var header struct {
		Alg string `json:"alg"`
		Typ string `json:"typ"`
		Kid string `json:"kid"`
	}
	decoder := json.NewDecoder(bytes.NewReader(head))
	decoder.DisallowUnknownFields()
	if err := decoder.Decode(&header); err != nil || decoder.More() {
		return false
	}
	return header.Alg == jwt.SigningMethodHS256.Alg() && (header.Typ == "" || header.Typ == "JWT")
}

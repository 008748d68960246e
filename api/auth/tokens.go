package auth

import (
	"errors"
	"fmt"
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
	claims, _, err := t.verify(raw)
	return claims, err
}

func (t *Tokens) verify(raw string) (_ Claims, otherKey bool, _ error) {
	// A kid says nothing here: every secret is tried.
	if _, sound := signedHeader(raw, jwt.SigningMethodHS256.Alg()); !sound {
		return Claims{}, false, refuseToken()
	}
	var claims tokenClaims
	_, err := t.parser.ParseWithClaims(raw, &claims, func(*jwt.Token) (any, error) { return t.keys, nil })
	if err != nil || !claims.sound() {
		return Claims{}, errors.Is(err, jwt.ErrTokenSignatureInvalid), refuseToken()
	}
	return Claims{SessionID: claims.SessionID, UserID: claims.UserID, Expires: claims.ExpiresAt.Time}, false, nil
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

package auth

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"time"

	"github.com/wallcrawler/wallcrawler/state"
)

// jweHeader is the header of every token that we mint, and of the original's.
const jweHeader = `{"alg":"dir","enc":"A256GCM"}`

const (
	gcmNonce = 12 // bytes: 96 bits
	gcmTag   = 16 // bytes: 128 bits
)

// JWE mints and verifies session tokens encrypted under a key that both ends hold: compact,
// alg dir, enc A256GCM. The key is the SHA-256 of the whole secret as it is stored, which is
// the original's way; so each reads the tokens of the other.
//
// The cipher is the standard library's and the format is read here. A general JOSE library
// would have to be told not to take other algorithms, compressed contents, loose base64url
// and a key where there must be none; what is left of the format after that is one line of AES-GCM.
type JWE struct {
	ciphers []cipher.AEAD // the current one first
	now     func() time.Time
}

var _ Verifier = (*JWE)(nil)

// NewJWE encrypts under the current secret and reads tokens under it or a previous one.
func NewJWE(current Secret, previous ...Secret) (*JWE, error) {
	t := &JWE{now: time.Now}
	for _, secret := range append([]Secret{current}, previous...) {
		if err := secret.check("the secret for encrypted session tokens"); err != nil {
			return nil, err
		}
		key := sha256.Sum256([]byte(secret))
		block, err := aes.NewCipher(key[:])
		if err != nil {
			return nil, errors.New("making the cipher of session tokens: AES is not usable")
		}
		aead, err := cipher.NewGCM(block)
		if err != nil {
			return nil, errors.New("making the cipher of session tokens: GCM is not usable")
		}
		t.ciphers = append(t.ciphers, aead)
	}
	return t, nil
}

// WithClock returns tokens under the same keys that tell the time by now.
func (t *JWE) WithClock(now func() time.Time) *JWE { return &JWE{ciphers: t.ciphers, now: now} }

// jweClaims are the claims that we write. The original's proxy wants browserOptions to be
// there; sub is the API key in the original's tokens, which ours never hold.
type jweClaims struct {
	SessionID      string   `json:"sessionId"`
	UserID         string   `json:"userId"`
	BrowserOptions struct{} `json:"browserOptions"`
	Subject        string   `json:"sub"`
	IssuedAt       int64    `json:"iat"`
	Expires        int64    `json:"exp"`
}

// Mint makes a token that opens one session, until expires. Nonces are drawn: keep to a few
// thousand million tokens under one secret.
func (t *JWE) Mint(sessionID, userID string, expires time.Time) (string, error) {
	claims := jweClaims{SessionID: sessionID, UserID: userID, Subject: userID, IssuedAt: t.now().Unix(), Expires: expires.Unix()}
	if !soundClaims(sessionID, userID, float64(claims.Expires)) {
		return "", fmt.Errorf("minting a token for session %q: %w", sessionID, state.ErrInvalid)
	}
	plain, err := json.Marshal(claims)
	if err != nil {
		return "", fmt.Errorf("minting a token for session %s: %w", sessionID, err)
	}
	encode := base64.RawURLEncoding.EncodeToString
	head := encode([]byte(jweHeader))
	nonce := make([]byte, gcmNonce)
	if _, err := rand.Read(nonce); err != nil {
		return "", fmt.Errorf("drawing the nonce of a token for session %s: %w", sessionID, err)
	}
	sealed := t.ciphers[0].Seal(nil, nonce, plain, []byte(head))
	text, tag := sealed[:len(plain)], sealed[len(plain):]
	return head + ".." + encode(nonce) + "." + encode(text) + "." + encode(tag), nil
}

// Verify gives the claims of a good token.
func (t *JWE) Verify(raw string) (Claims, error) {
	claims, _, err := t.verify(raw)
	return claims, err
}

func (t *JWE) verify(raw string) (_ Claims, otherKey bool, _ error) {
	parts, ok := decodeSegments(raw, encryptedSegments)
	if !ok || len(parts[1]) != 0 || len(parts[2]) != gcmNonce || len(parts[3]) == 0 || len(parts[4]) != gcmTag {
		return Claims{}, false, refuseToken()
	}
	fields, ok := header(parts[0])
	if !ok || !plainJWEHeader(fields) {
		return Claims{}, false, refuseToken()
	}
	// What was authenticated is the header as it was spelt: the first segment.
	bound := []byte(raw[:base64.RawURLEncoding.EncodedLen(len(parts[0]))])
	sealed := append(parts[3], parts[4]...)
	for _, aead := range t.ciphers {
		plain, err := aead.Open(nil, parts[2], sealed, bound)
		if err != nil {
			continue
		}
		claims, good := readClaims(plain, t.now())
		if !good {
			return Claims{}, false, refuseToken()
		}
		return claims, false, nil
	}
	return Claims{}, true, refuseToken()
}

// plainJWEHeader tells whether a header says dir, A256GCM and at most that it is a JWT. There
// is one key, so a kid has nothing to name; cty would announce a token in the token.
func plainJWEHeader(fields map[string]string) bool {
	typ, typed := fields["typ"]
	want := 2
	if typed {
		want++
	}
	return len(fields) == want && fields["alg"] == "dir" && fields["enc"] == "A256GCM" && (!typed || typ == "JWT")
}

// readClaims reads the claims of an encrypted token and judges its times.
func readClaims(plain []byte, now time.Time) (Claims, bool) {
	// A map, because the names count as they are spelt: a struct would take SESSIONID too.
	var fields map[string]json.RawMessage
	if json.Unmarshal(plain, &fields) != nil {
		return Claims{}, false
	}
	sessionID, ok1 := member[string](fields, "sessionId")
	userID, ok2 := member[string](fields, "userId")
	exp, ok3 := member[float64](fields, "exp")
	if !ok1 || !ok2 || !ok3 || !soundClaims(sessionID, userID, exp) {
		return Claims{}, false
	}
	clock, leeway := float64(now.UnixMilli())/1000, tokenLeeway.Seconds()
	if exp <= clock-leeway {
		return Claims{}, false
	}
	for _, name := range []string{"iat", "nbf"} {
		if _, there := fields[name]; !there {
			continue
		}
		at, isNumber := member[float64](fields, name)
		if !isNumber || at > clock+leeway {
			return Claims{}, false
		}
	}
	return Claims{SessionID: sessionID, UserID: userID, Expires: time.Unix(int64(exp), 0)}, true
}

// member reads one member that must be there and not be null.
func member[T any](fields map[string]json.RawMessage, name string) (T, bool) {
	var value *T
	if json.Unmarshal(fields[name], &value) != nil || value == nil {
		var none T
		return none, false
	}
	return *value, true
}

func soundClaims(sessionID, userID string, exp float64) bool {
	return state.ValidID(sessionID) && userID != "" && len(userID) <= maxUser &&
		!math.IsNaN(exp) && exp > 0 && exp <= lastExpiry
}

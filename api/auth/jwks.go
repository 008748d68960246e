package auth

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rsa"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/big"
	"net/http"
	"net/url"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/golang-jwt/jwt/v5"
)

const (
	maxKeySet   = 256 << 10 // bytes of a JWKS
	maxKeyCount = 64        // keys in it
	minRSA      = 2048      // bits
	maxRSA      = 8192      // bits: a larger key costs more than a request is worth
)

// Algorithms are those that a key set of others may sign with.
func Algorithms() []string { return []string{"ES256", "RS256", "EdDSA"} }

// JWKSOptions say whose tokens are taken.
type JWKSOptions struct {
	Algorithm string // one of Algorithms; the tokens have no say in it
	Audience  string // a token must name it; empty: wallcrawler
	Issuer    string // a token must name it; empty: any

	Now func() time.Time // nil: time.Now
}

// JWKS verifies session tokens that others sign, under the public keys of a set that may
// change. It mints none.
type JWKS struct {
	*rotated[*keySet]
	parser *jwt.Parser
	alg    string
}

var _ Verifier = (*JWKS)(nil)

// OpenJWKS waits for a key set. cfg.Source gives its text: KeySetFile or KeySetURL.
func OpenJWKS(ctx context.Context, cfg SecretConfig, o JWKSOptions) (*JWKS, error) {
	if !slices.Contains(Algorithms(), o.Algorithm) {
		return nil, fmt.Errorf("algorithm %q is not offered: use one of %s", o.Algorithm, strings.Join(Algorithms(), ", "))
	}
	if o.Audience == "" {
		o.Audience = tokenAudience
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	r, err := openRotated(ctx, cfg, func(v Versions) (*keySet, error) { return parseKeySet([]byte(v.Current), o.Algorithm) })
	if err != nil {
		return nil, err
	}
	options := []jwt.ParserOption{
		jwt.WithValidMethods([]string{o.Algorithm}), jwt.WithStrictDecoding(), jwt.WithExpirationRequired(), jwt.WithIssuedAt(),
		jwt.WithAudience(o.Audience), jwt.WithLeeway(tokenLeeway), jwt.WithTimeFunc(o.Now),
	}
	if o.Issuer != "" {
		options = append(options, jwt.WithIssuer(o.Issuer))
	}
	return &JWKS{r, jwt.NewParser(options...), o.Algorithm}, nil
}

// Verify gives the claims of a good token. One under a key that is not in the set has the set
// read again, within limits.
func (j *JWKS) Verify(raw string) (Claims, error) {
	kid, sound := signedHeader(raw, j.alg)
	if !sound {
		return Claims{}, refuseToken()
	}
	seen := j.value.Load()
	key, known := seen.value.find(kid)
	if !known {
		newest, changed := j.renew(seen)
		if !changed {
			return Claims{}, refuseToken()
		}
		if key, known = newest.value.find(kid); !known {
			return Claims{}, refuseToken()
		}
	}
	var claims tokenClaims
	if _, err := j.parser.ParseWithClaims(raw, &claims, func(*jwt.Token) (any, error) { return key, nil }); err != nil {
		return Claims{}, refuseToken()
	}
	if claims.UserID == "" {
		claims.UserID = claims.Subject
	}
	if !claims.sound() {
		return Claims{}, refuseToken()
	}
	return Claims{SessionID: claims.SessionID, UserID: claims.UserID, Expires: claims.ExpiresAt.Time}, nil
}

// keySet holds the public keys of one algorithm.
type keySet struct {
	byID map[string]crypto.PublicKey
	only crypto.PublicKey // if there is just one: for tokens that name none
}

func (s *keySet) find(kid string) (crypto.PublicKey, bool) {
	if kid == "" {
		return s.only, s.only != nil
	}
	key, known := s.byID[kid]
	return key, known
}

// jwk is one key of a set, as far as it is read. Private parts are passed over.
type jwk struct {
	Kty, Kid, Alg, Use, Crv string
	KeyOps                  []string `json:"key_ops"`
	N, E, X, Y              string
}

// parseKeySet takes the keys that may sign with alg. Those for other uses are passed over;
// one that is meant for us and broken makes the whole set bad.
func parseKeySet(text []byte, alg string) (*keySet, error) {
	if len(text) > maxKeySet {
		return nil, fmt.Errorf("the key set has %d bytes: %d at most", len(text), maxKeySet)
	}
	var doc struct{ Keys []json.RawMessage }
	if json.Unmarshal(text, &doc) != nil || doc.Keys == nil {
		return nil, errors.New(`the key set is not JSON like {"keys":[…]}`)
	}
	if len(doc.Keys) > maxKeyCount {
		return nil, fmt.Errorf("the key set has %d keys: %d at most", len(doc.Keys), maxKeyCount)
	}
	set := &keySet{byID: map[string]crypto.PublicKey{}}
	count := 0
	for i, raw := range doc.Keys {
		var k jwk
		if json.Unmarshal(raw, &k) != nil {
			continue // of a kind that we do not know
		}
		if !k.usable(alg) {
			continue
		}
		key, err := k.public()
		if err != nil {
			return nil, fmt.Errorf("key %d of the set: %w", i+1, err)
		}
		if _, twice := set.byID[k.Kid]; twice && k.Kid != "" {
			return nil, fmt.Errorf("key %d of the set has the kid of another", i+1)
		}
		if k.Kid != "" {
			set.byID[k.Kid] = key
		}
		set.only = key
		count++
	}
	if count == 0 {
		return nil, fmt.Errorf("the key set holds no key for %s", alg)
	}
	if count > 1 {
		set.only = nil
	}
	return set, nil
}

// usable tells whether the key is one for alg's signatures.
func (k *jwk) usable(alg string) bool {
	kind := map[string][2]string{"ES256": {"EC", "P-256"}, "RS256": {"RSA", ""}, "EdDSA": {"OKP", "Ed25519"}}[alg]
	return k.Kty == kind[0] && (kind[1] == "" || k.Crv == kind[1]) && (k.Alg == "" || k.Alg == alg) &&
		(k.Use == "" || k.Use == "sig") && (len(k.KeyOps) == 0 || slices.Contains(k.KeyOps, "verify"))
}

func (k *jwk) public() (crypto.PublicKey, error) {
	switch k.Kty {
	case "EC":
		return k.ec()
	case "RSA":
		return k.rsa()
	default:
		x, err := decodeNumber(k.X)
		if err != nil || len(x) != ed25519.PublicKeySize {
			return nil, errors.New("it is no Ed25519 key")
		}
		return ed25519.PublicKey(x), nil
	}
}

func (k *jwk) ec() (crypto.PublicKey, error) {
	x, errX := decodeNumber(k.X)
	y, errY := decodeNumber(k.Y)
	if errX != nil || errY != nil || len(x) != 32 || len(y) != 32 {
		return nil, errors.New("it is no P-256 key")
	}
	// This also checks that the point is on the curve.
	key, err := ecdsa.ParseUncompressedPublicKey(elliptic.P256(), slices.Concat([]byte{4}, x, y))
	if err != nil {
		return nil, errors.New("it is no point of P-256")
	}
	return key, nil
}

func (k *jwk) rsa() (crypto.PublicKey, error) {
	n, errN := decodeNumber(k.N)
	e, errE := decodeNumber(k.E)
	modulus := new(big.Int).SetBytes(n)
	if errN != nil || errE != nil || len(e) == 0 || len(e) > 4 || modulus.Bit(0) == 0 {
		return nil, errors.New("it is no RSA key")
	}
	exponent := new(big.Int).SetBytes(e).Int64()
	if modulus.BitLen() < minRSA || modulus.BitLen() > maxRSA || exponent < 3 || exponent%2 == 0 || exponent >= 1<<31 {
		return nil, fmt.Errorf("RSA keys must have %d to %d bits and an odd exponent", minRSA, maxRSA)
	}
	return &rsa.PublicKey{N: modulus, E: int(exponent)}, nil
}

func decodeNumber(text string) ([]byte, error) {
	if strings.ContainsAny(text, "\r\n") {
		return nil, errors.New("line ends in a number")
	}
	return base64.RawURLEncoding.DecodeString(text)
}

// KeySetFile is the Source of a key set in a file.
func KeySetFile(path string) Source {
	return func(context.Context) (Versions, error) {
		f, err := os.Open(path)
		if err != nil {
			return Versions{}, fmt.Errorf("opening the key set: %w", err)
		}
		defer func() { _ = f.Close() }()
		return readKeySet(f)
	}
}

// CheckKeySetURL tells what is wrong with the URL of a key set. Keys that decide who gets in
// come by TLS, or from this machine.
func CheckKeySetURL(text string) error {
	wrong := errors.New("a key set's URL must be https://host/path, or http:// on this machine, without user and password")
	u, err := url.Parse(text)
	if err != nil || u.Host == "" || u.User != nil || u.Fragment != "" || u.Scheme != "https" && u.Scheme != "http" {
		return wrong
	}
	if local, err := onLoopback("http://" + u.Host); u.Scheme == "http" && (err != nil || !local) {
		return wrong
	}
	return nil
}

// KeySetURL is the Source of a key set at a URL that CheckKeySetURL has nothing against.
// Redirects are not followed.
func KeySetURL(text string) Source {
	client := &http.Client{
		Timeout:       readTimeout,
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
	return func(ctx context.Context) (Versions, error) {
		if err := CheckKeySetURL(text); err != nil {
			return Versions{}, err
		}
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, text, nil)
		if err != nil {
			return Versions{}, errors.New("asking for the key set: the URL is no good")
		}
		req.Header.Set("Accept", "application/json")
		resp, err := client.Do(req)
		if err != nil {
			// The library's error would hold the URL, whose query may be a secret.
			if wrapped := (*url.Error)(nil); errors.As(err, &wrapped) {
				err = wrapped.Err
			}
			return Versions{}, fmt.Errorf("asking for the key set: %w", err)
		}
		defer func() { _ = resp.Body.Close() }()
		if resp.StatusCode != http.StatusOK {
			return Versions{}, fmt.Errorf("asking for the key set: HTTP status %d", resp.StatusCode)
		}
		return readKeySet(resp.Body)
	}
}

func readKeySet(r io.Reader) (Versions, error) {
	text, err := io.ReadAll(io.LimitReader(r, maxKeySet+1))
	if err != nil {
		return Versions{}, fmt.Errorf("reading the key set: %w", err)
	}
	return Versions{Current: Secret(text)}, nil
}

package auth

import (
	"time"
)

// Minter makes session tokens.
type Minter interface {
	Mint(sessionID, userID string, expires time.Time) (string, error)
}

// Gate checks session tokens of the kinds that are configured. Which one a token is tried as
// is told by its number of segments and by nothing that it says.
type Gate struct {
	Signed    Verifier // of three segments; nil: none are taken
	Encrypted Verifier // of five segments; nil: none are taken
	Minter             // of our own tokens

	Metrics *Metrics // nil: none
}

// Verify gives the claims of a good token.
func (g *Gate) Verify(raw string) (Claims, error) {
	var verifier Verifier
	kind := kindOther
	if len(raw) <= maxToken {
		switch segmentsOf(raw) {
		case signedSegments:
			verifier, kind = g.Signed, kindSigned
		case encryptedSegments:
			verifier, kind = g.Encrypted, kindEncrypted
		}
	}
	if verifier == nil {
		g.count(kind, resultRefused)
		return Claims{}, refuseToken()
	}
	claims, err := verifier.Verify(raw)
	if err != nil {
		g.count(kind, resultRefused)
		return Claims{}, err
	}
	g.count(kind, resultGood)
	return claims, nil
}

func (g *Gate) count(kind, result string) {
	if g.Metrics != nil {
		g.Metrics.tokens.WithLabelValues(kind, result).Inc()
	}
}

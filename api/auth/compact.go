package auth

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"strings"
	"unicode/utf8"
)

const (
	signedSegments    = 3 // of a JWS
	encryptedSegments = 5 // of a JWE

	maxKeyID = 256 // bytes of a kid
)

// segmentsOf counts the segments of a compact token without splitting it.
func segmentsOf(raw string) int {
	if raw == "" {
		return 0
	}
	return strings.Count(raw, ".") + 1
}

// decodeSegments takes a compact token apart: at most 8 KiB, exactly n segments, each in
// strict base64url without padding, line ends or loose trailing bits, so that one token has
// one spelling.
func decodeSegments(raw string, n int) ([][]byte, bool) {
	if len(raw) > maxToken || segmentsOf(raw) != n {
		return nil, false
	}
	encoding := base64.RawURLEncoding.Strict()
	parts := make([][]byte, 0, n)
	for segment := range strings.SplitSeq(raw, ".") {
		// The decoder skips line ends; nobody else does.
		if strings.ContainsAny(segment, "\r\n") {
			return nil, false
		}
		decoded, err := encoding.DecodeString(segment)
		if err != nil {
			return nil, false
		}
		parts = append(parts, decoded)
	}
	return parts, true
}

// header reads a token's header: a JSON object of texts, each name once and exactly as it is
// spelt. Everything that our headers may say is a text; a header with anything else in it
// (crit, jwk, x5c, epk, p2c, b64 …) is none.
func header(text []byte) (map[string]string, bool) {
	if !utf8.Valid(text) {
		return nil, false
	}
	decoder := json.NewDecoder(bytes.NewReader(text))
	if start, err := decoder.Token(); err != nil || start != json.Delim('{') {
		return nil, false
	}
	fields := map[string]string{}
	for decoder.More() {
		name, err := decoder.Token()
		if err != nil {
			return nil, false
		}
		value, err := decoder.Token()
		if err != nil {
			return nil, false
		}
		key, isText := name.(string)
		content, ok := value.(string)
		if _, twice := fields[key]; !isText || !ok || twice {
			return nil, false
		}
		fields[key] = content
	}
	if end, err := decoder.Token(); err != nil || end != json.Delim('}') {
		return nil, false
	}
	// Nothing but white space may follow.
	return fields, len(bytes.TrimSpace(text[decoder.InputOffset():])) == 0
}

// signedHeader takes a signed token apart and tells the key that it names, if its form is
// sound and its header asks for nothing but alg.
func signedHeader(raw, alg string) (kid string, sound bool) {
	parts, ok := decodeSegments(raw, signedSegments)
	if !ok {
		return "", false
	}
	for _, part := range parts {
		if len(part) == 0 {
			return "", false
		}
	}
	fields, ok := header(parts[0])
	if !ok || fields["alg"] != alg {
		return "", false
	}
	for name, value := range fields {
		switch name {
		case "alg":
		case "typ":
			if value != "JWT" && value != "at+jwt" && value != "" {
				return "", false
			}
		case "kid":
			if !plainKeyID(value) {
				return "", false
			}
		default: // zip, jku, x5u, cty … known or not
			return "", false
		}
	}
	return fields["kid"], true
}

// plainKeyID refuses key ids that are references: a kid is looked up among known keys, it
// never leads anywhere.
func plainKeyID(kid string) bool {
	if len(kid) > maxKeyID || strings.Contains(kid, "..") || strings.Contains(kid, ":/") {
		return false
	}
	for _, c := range []byte(kid) {
		if c <= ' ' || c > '~' {
			return false
		}
	}
	return true
}

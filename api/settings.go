package api

import (
	"bytes"
	"encoding/json"
	"fmt"
	"math"
	"net"
	"net/url"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"
)

// Limits of what a creation may ask for.
const (
	minTimeout  = time.Second
	maxTimeout  = 6 * time.Hour
	maxViewport = 8192     // pixels a side
	maxMetadata = 16 << 10 // bytes
	maxText     = 1024     // bytes of a user agent
)

// settings are the browser's, as the document and the agent know them.
type settings struct {
	Viewport   *viewport `json:"viewport,omitempty"`
	UserAgent  string    `json:"userAgent,omitempty"`
	Locale     string    `json:"locale,omitempty"`
	TimezoneID string    `json:"timezoneId,omitempty"`
	Proxy      *proxy    `json:"proxy,omitempty"`

	IgnoreCertificateErrors bool `json:"ignoreCertificateErrors,omitempty"`
}

type viewport struct {
	Width  int `json:"width"`
	Height int `json:"height"`
}

type proxy struct {
	Server string `json:"server"`
	Bypass string `json:"bypass,omitempty"` // hosts to reach directly, separated by commas
}

// creation is a request for a session, understood.
type creation struct {
	timeout   time.Duration
	keepAlive bool
	projectID string
	region    string
	metadata  json.RawMessage
	settings  settings
}

// supportedFields and supportedSettings are what has an effect, for the hints.
const (
	supportedFields   = "browserSettings, keepAlive, projectId, proxies (one external), region, timeout, userMetadata"
	supportedSettings = "viewport, userAgent, locale, timezoneId, proxy, ignoreCertificateErrors"
)

// passive lists the browserSettings of the Browserbase shape that we accept without effect,
// each only at values under which a session of ours is what was asked for. Any other value
// is refused by name. Keep the order of the alphabet.
//
//	advancedStealth       false      there is no stealth mode
//	allowedDomains        []         traffic is not filtered
//	blockAds              false      advertisements are not blocked
//	captchaImageSelector  ""         captchas are not solved
//	captchaInputSelector  ""         captchas are not solved
//	extraHTTPHeaders      {}         set them through the protocol
//	fingerprint           {}         the browser shows its own
//	logSession            any        a default of that shape; no log is kept either way
//	os                    "linux"    what the browsers run on
//	permissions           []         grant them through the protocol
//	recordSession         any        a default of that shape; nothing is recorded either way
//	solveCaptchas         any        a default of that shape; captchas are not solved either way
//	storageState          {}         set it through the protocol
//	verified              false      browsers are not vouched for
func passive() map[string][]string {
	return map[string][]string{
		"advancedStealth":      {"false"},
		"allowedDomains":       {"[]"},
		"blockAds":             {"false"},
		"captchaImageSelector": {`""`},
		"captchaInputSelector": {`""`},
		"extraHTTPHeaders":     {"{}"},
		"fingerprint":          {"{}"},
		"logSession":           {"true", "false"},
		"os":                   {`"linux"`},
		"permissions":          {"[]"},
		"recordSession":        {"true", "false"},
		"solveCaptchas":        {"true", "false"},
		"storageState":         {"{}"},
		"verified":             {"false"},
	}
}

// regions are the ones that the Browserbase shape knows; its SDKs check them.
func regions() []string {
	return []string{"us-west-2", "us-east-1", "eu-central-1", "ap-southeast-1"}
}

// parseCreation understands the body of POST /v1/sessions. An empty body asks for the defaults.
func parseCreation(body []byte, timeout time.Duration) (creation, error) {
	c := creation{timeout: timeout}
	if len(bytes.TrimSpace(body)) == 0 {
		return c, nil
	}
	if err := checkJSON(body); err != nil {
		return c, err
	}
	err := readObject("", body, supportedFields, map[string]reader{
		"projectId":       text(&c.projectID, 128, nil, ""),
		"keepAlive":       boolean(&c.keepAlive),
		"timeout":         c.readTimeout,
		"region":          c.readRegion,
		"userMetadata":    c.readMetadata,
		"browserSettings": c.readSettings,
		"proxies":         c.readProxies,
		"proxySettings":   atMost(supportedFields, "{}"),
		"extensionId":     never(supportedFields),
	})
	return c, err
}

func (c *creation) readTimeout(at string, raw json.RawMessage) error {
	var seconds float64
	wrong := invalid(fmt.Sprintf("%s must be a whole number of seconds from %d to %d, not %s",
		at, int(minTimeout.Seconds()), int(maxTimeout.Seconds()), show(raw)), "the unit is the second, not the millisecond")
	if json.Unmarshal(raw, &seconds) != nil || seconds != math.Trunc(seconds) ||
		seconds < minTimeout.Seconds() || seconds > maxTimeout.Seconds() {
		return wrong
	}
	c.timeout = time.Duration(seconds) * time.Second
	return nil
}

func (c *creation) readRegion(at string, raw json.RawMessage) error {
	if json.Unmarshal(raw, &c.region) != nil || !slices.Contains(regions(), c.region) {
		return invalid(fmt.Sprintf("%s must be one of %s, not %s", at, strings.Join(regions(), ", "), show(raw)), "leave it out: sessions run where this server runs")
	}
	return nil
}

func (c *creation) readMetadata(at string, raw json.RawMessage) error {
	if kindOf(raw) != "an object" {
		return wrongType(at, "an object", raw)
	}
	if len(raw) > maxMetadata {
		return invalid(fmt.Sprintf("%s has %d bytes: at most %d are kept", at, len(raw), maxMetadata), "")
	}
	if _, err := members(at, raw); err != nil {
		return err
	}
	c.metadata = raw
	return nil
}

func (c *creation) readSettings(at string, raw json.RawMessage) error {
	zone := ""
	fields := map[string]reader{
		"viewport":   c.readViewport,
		"userAgent":  text(&c.settings.UserAgent, maxText, printable, "printable text"),
		"locale":     text(&c.settings.Locale, 35, localeForm.MatchString, "a language tag like en-US"),
		"timezoneId": text(&c.settings.TimezoneID, 64, zoneForm.MatchString, "an IANA zone like Europe/Berlin"),
		"timezone":   text(&zone, 64, zoneForm.MatchString, "an IANA zone like Europe/Berlin"),
		"proxy":      c.readProxy,

		"ignoreCertificateErrors": boolean(&c.settings.IgnoreCertificateErrors),

		"context":     never(supportedSettings),
		"extensionId": never(supportedSettings),
	}
	for name, values := range passive() {
		fields[name] = atMost(supportedSettings, values...)
	}
	if err := readObject(at, raw, supportedSettings, fields); err != nil {
		return err
	}
	if zone != "" && c.settings.TimezoneID != "" && zone != c.settings.TimezoneID {
		return invalid(at+".timezone and "+at+".timezoneId differ", "give timezoneId alone")
	}
	if zone != "" {
		c.settings.TimezoneID = zone
	}
	return nil
}

func (c *creation) readViewport(at string, raw json.RawMessage) error {
	v := viewport{}
	if err := readObject(at, raw, "width, height", map[string]reader{"width": pixels(&v.Width), "height": pixels(&v.Height)}); err != nil {
		return err
	}
	if v.Width == 0 || v.Height == 0 {
		return invalid(at+" needs both width and height, in pixels", "")
	}
	c.settings.Viewport = &v
	return nil
}

func (c *creation) readProxy(at string, raw json.RawMessage) error {
	p := proxy{}
	if err := readObject(at, raw, "server, bypass", map[string]reader{
		"server": proxyServer(&p.Server), "bypass": text(&p.Bypass, maxText, printable, "hosts separated by commas"),
	}); err != nil {
		return err
	}
	return c.setProxy(at, p)
}

// readProxies takes the top-level field of the Browserbase shape: a list with one external
// proxy is the same as browserSettings.proxy.
func (c *creation) readProxies(at string, raw json.RawMessage) error {
	if kindOf(raw) == "a list" {
		var list []json.RawMessage
		if err := json.Unmarshal(raw, &list); err != nil {
			return malformed(raw, err)
		}
		switch {
		case len(list) == 0:
			return nil
		case len(list) > 1:
			return refuseField(at+": several proxies are not supported", "give one of type external with a server")
		}
		at += "[0]"
		kind, server := "", ""
		if err := readObject(at, list[0], "type, server", map[string]reader{
			"type": text(&kind, 32, nil, ""), "server": proxyServer(&server),
			"domainPattern": atMost("type, server", `""`), "username": atMost("type, server", `""`), "password": atMost("type, server", `""`),
		}); err != nil {
			return err
		}
		if kind == "none" && server == "" {
			return nil
		}
		if kind != "external" {
			return refuseField(fmt.Sprintf("%s.type must be external", at), "this server has no proxies of its own: give one of type external with a server")
		}
		return c.setProxy(at, proxy{Server: server})
	}
	var wanted bool
	if json.Unmarshal(raw, &wanted) != nil {
		return wrongType(at, "false or a list", raw)
	}
	if wanted {
		return refuseField("proxies: true is not supported", "this server has no proxies of its own: give [{\"type\":\"external\",\"server\":…}]")
	}
	return nil
}

func (c *creation) setProxy(at string, p proxy) error {
	if p.Server == "" {
		return invalid(at+".server must be set", "write it as http://host:port")
	}
	if c.settings.Proxy != nil && *c.settings.Proxy != p {
		return invalid("two different proxies are given", "give one, either in proxies or in browserSettings.proxy")
	}
	c.settings.Proxy = &p
	return nil
}

// Forms of texts that end up on a browser's command line or in its preferences.
var (
	localeForm = regexp.MustCompile(`^[A-Za-z]{2,3}([-_][A-Za-z0-9]{2,8}){0,3}$`)
	zoneForm   = regexp.MustCompile(`^[A-Za-z][A-Za-z0-9_+-]*(/[A-Za-z0-9_+-]+){0,2}$`)
)

func printable(s string) bool {
	return strings.IndexFunc(s, func(r rune) bool { return r < ' ' || r == 0x7f || (r >= 0x80 && r < 0xa0) || r == utf8.RuneError }) < 0
}

func proxyServer(into *string) reader {
	return func(at string, raw json.RawMessage) error {
		wrong := invalid(at+" must be scheme://host:port with the scheme http, https, socks4 or socks5, without user and path", "")
		if json.Unmarshal(raw, into) != nil || len(*into) > maxText {
			return wrong
		}
		u, err := url.Parse(*into)
		if err != nil || !slices.Contains([]string{"http", "https", "socks4", "socks5"}, u.Scheme) || u.User != nil ||
			strings.Trim(u.Path, "/") != "" || u.RawQuery != "" || u.ForceQuery || u.Fragment != "" || !plainHost(u.Host) {
			return wrong
		}
		if port := u.Port(); port != "" {
			if n, err := strconv.Atoi(port); err != nil || n < 1 || n > 65535 {
				return wrong
			}
		} else if strings.HasSuffix(u.Host, ":") {
			return wrong
		}
		host := u.Host
		if ip := net.ParseIP(u.Hostname()); ip != nil && u.Port() == "" {
			host = strings.TrimSuffix(u.Host, ":")
		}
		*into = u.Scheme + "://" + host
		return nil
	}
}

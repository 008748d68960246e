package api

import (
	"crypto/sha256"
	_ "embed"
	"encoding/base64"
	"net/http"
	"strings"

	"github.com/labstack/echo/v4"
)

//go:embed dashboard.html
var dashboardHTML string

// dashboard is the operator's page: one file, without a secret and without anything from
// elsewhere. The key that its user types stays in the browser's tab.
type dashboard struct {
	html   string
	policy string // Content-Security-Policy
}

// newDashboard allows exactly the script and the style that the page holds, by their digests.
func newDashboard() dashboard {
	return dashboard{html: dashboardHTML, policy: strings.Join([]string{
		"default-src 'none'",
		"script-src " + digestOf(dashboardHTML, "script"),
		"style-src " + digestOf(dashboardHTML, "style"),
		"connect-src 'self'",
		"img-src data:",
		"base-uri 'none'",
		"form-action 'none'",
		"frame-ancestors 'none'",
	}, "; ")}
}

// digestOf gives the CSP source of the page's one element of that name.
func digestOf(html, element string) string {
	_, rest, _ := strings.Cut(html, "<"+element+">")
	inside, _, _ := strings.Cut(rest, "</"+element+">")
	sum := sha256.Sum256([]byte(inside))
	return "'sha256-" + base64.StdEncoding.EncodeToString(sum[:]) + "'"
}

func (s *Server) showDashboard(c echo.Context) error {
	header := c.Response().Header()
	header.Set("Content-Security-Policy", s.page.policy)
	header.Set("Cache-Control", "no-cache")
	return c.HTML(http.StatusOK, s.page.html)
}

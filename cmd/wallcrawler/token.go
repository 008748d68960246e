package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"os"
	"time"

	"github.com/spf13/cobra"

	"github.com/wallcrawler/wallcrawler/state"
)

func newToken() *cobra.Command {
	var t target
	var mint bool
	var user, file string
	var ttl time.Duration
	cmd := &cobra.Command{
		Use:   "token SESSION",
		Short: "Print a token for a session",
		Long: `Print a token that opens one session's browser. By default the service is asked for it. With
--mint it is made here, of JWE_SECRET or JWT_SECRET as serve would, for a session that need not exist yet.`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			id := args[0]
			if !state.ValidID(id) {
				return fmt.Errorf("%q is no session id: 1 to 128 letters, digits, - or _", id)
			}
			if mint {
				token, err := mintToken(cmd.Context(), file, id, user, ttl)
				if err != nil {
					return err
				}
				fmt.Fprintln(cmd.OutOrStdout(), token)
				return nil
			}
			c, err := t.client()
			if err != nil {
				return err
			}
			var s session
			if err := c.do(cmd.Context(), http.MethodGet, sessionPath(id), nil, &s); err != nil {
				return err
			}
			if s.Token == "" {
				return fmt.Errorf("session %s is %s: it has no token any more", id, s.Status)
			}
			fmt.Fprintln(cmd.OutOrStdout(), s.Token)
			return nil
		},
	}
	t.flags(cmd)
	cmd.Flags().BoolVar(&mint, "mint", false, "make the token here, of the secrets that serve is configured with")
	cmd.Flags().StringVar(&user, "user", "", "with --mint: the session's user")
	cmd.Flags().DurationVar(&ttl, "ttl", time.Hour, "with --mint: how long the token is good")
	cmd.Flags().StringVar(&file, "config", "", "with --mint: configuration file")
	return cmd
}

func mintToken(ctx context.Context, file, id, user string, ttl time.Duration) (string, error) {
	c, err := loadConfig(serveSettings(), configFile(file), os.Environ())
	if err != nil {
		return "", err
	}
	if ttl <= 0 {
		return "", fmt.Errorf("--ttl is %s: it must be positive", ttl)
	}
	jwe, errJWE := c.secret("jwe")
	jwt, errJWT := c.secret("jwt")
	specs := &secretSpecs{JWE: jwe, JWT: jwt, Manager: c.managerOptions()}
	if err := errors.Join(append(specs.checkTokens(), errJWE, errJWT)...); err != nil {
		return "", err
	}
	o, err := specs.opener(ctx, nil, slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelWarn})))
	if err != nil {
		return "", err
	}
	if err := o.sessionTokens(ctx, specs); err != nil {
		return "", err
	}
	return o.out.tokens.Mint(id, user, time.Now().Add(ttl))
}

package main

import (
	"fmt"
	"path/filepath"

	"github.com/spf13/cobra"

	"waxseal/fleet/enroll"
)

func (a *app) owner() *cobra.Command {
	return a.group("owner", "The owner's certificates", a.ownerInit())
}

func (a *app) ownerInit() *cobra.Command {
	return &cobra.Command{
		Use: "init DIR", Short: "Make an owner's directory: a CA and the verifier's client certificate",
		Args: args("DIR, the directory to make"),
		RunE: func(_ *cobra.Command, args []string) error {
			if err := enroll.Init(args[0], a.now()); err != nil {
				return fmt.Errorf("owner init: %w", err)
			}
			fmt.Fprintf(a.stdout, "Made %s: put it on the routers' configuration partition.\n", filepath.Join(args[0], enroll.CAFile))
			fmt.Fprintf(a.stdout, "Keep %s secret: who has it can be any of your routers.\n", filepath.Join(args[0], enroll.CAKeyFile))
			return nil
		},
	}
}

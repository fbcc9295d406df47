package main

import (
	"fmt"

	"github.com/spf13/cobra"

	"waxseal/fleet/export"
	"waxseal/measure/evidence"
)

func (a *app) evidenceExport() *cobra.Command {
	var format, out string
	c := &cobra.Command{
		Use: "export FILE", Short: "Write a saved evidence file in the form of another project",
		Long: "Converts evidence that 'waxseal attest --save' has written, so that others can verify it. It judges nothing: what is\n" +
			"exported is as genuine as it was. The form go-tpm-tools is an attest.Attestation in protobuf, for the server package\n" +
			"of github.com/google/go-tpm-tools; the nonce that its verifier needs is printed.",
		Args: args("FILE, the evidence"),
	}
	c.Flags().StringVar(&format, "format", "go-tpm-tools", "form to write; go-tpm-tools is the only one")
	c.Flags().StringVarP(&out, "output", "o", "", "`FILE` to write")
	c.RunE = func(c *cobra.Command, args []string) error {
		if err := need(c, "output"); err != nil {
			return err
		}
		if format != "go-tpm-tools" {
			return usageError{c.CommandPath(), fmt.Errorf("--format: %q is not go-tpm-tools", format)}
		}
		return a.export(args[0], out)
	}
	return c
}

func (a *app) export(path, out string) error {
	text, err := readFile(path, evidence.MaxFile)
	if err != nil {
		return err
	}
	ev, err := evidence.Parse(text)
	if err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	b, note, err := export.GoTPMTools(ev)
	if err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	if err := writeFile(out, b); err != nil {
		return err
	}
	if note != "" {
		fmt.Fprintf(a.stderr, "waxseal: note: %s\n", clean(note))
	}
	_, err = fmt.Fprintf(a.stdout, "nonce %x\n", ev.Nonce)
	return err
}

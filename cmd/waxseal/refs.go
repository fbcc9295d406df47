package main

import (
	"fmt"

	"github.com/spf13/cobra"

	"waxseal/images"
	"waxseal/measure/reference"
)

func (a *app) refs() *cobra.Command {
	return a.group("refs", "Reference values: what a good boot looks like", a.refsPredict(), a.refsShow())
}

func (a *app) refsPredict() *cobra.Command {
	var o images.PredictOptions
	var save string
	c := &cobra.Command{
		Use: "predict DIR", Short: "Compute the reference values of a built image that was not booted",
		Args: args("DIR, a directory made by waxseal-image"),
	}
	c.Flags().StringVar(&o.Version, "version", "", "the release that the image belongs to, free text")
	c.Flags().BoolVar(&o.Direct, "direct", false, "for a start without firmware: assurance self")
	c.Flags().StringVar(&save, "save", "", "write to `FILE` (default: standard output)")
	c.RunE = func(c *cobra.Command, args []string) error {
		a.progress("reading " + args[0])
		v, err := images.Predict(c.Context(), args[0], o)
		a.progress("")
		if err != nil {
			return fmt.Errorf("refs predict: %w", err)
		}
		b, err := v.Encode()
		if err != nil {
			return fmt.Errorf("refs predict: %w", err)
		}
		if save == "" {
			_, err = a.stdout.Write(b)
			return err
		}
		return writeFile(save, b)
	}
	return c
}

func (a *app) refsShow() *cobra.Command {
	return &cobra.Command{
		Use: "show FILE", Short: "Show the reference values of a file",
		Args: args("FILE, the reference values"),
		RunE: func(_ *cobra.Command, args []string) error {
			b, err := readFile(args[0], reference.MaxSize)
			if err != nil {
				return err
			}
			v, err := reference.Parse(b)
			if err != nil {
				return fmt.Errorf("%s: %w", args[0], err)
			}
			t := table{paint: paintFor(a.stdout)}
			t.reference(v)
			_, err = fmt.Fprint(a.stdout, t.String())
			return err
		},
	}
}

func (t *table) reference(v reference.Values) {
	t.line("%s %s", clean(v.Product), clean(v.Version))
	t.line("")
	t.line("profile     %s", clean(v.Profile))
	t.line("assurance   at least %s", clean(v.Assurance))
	t.line("hand-over   %s", clean(v.Handoff))
	t.line("")
	t.line("%s", t.paint(dim, "PCR  SOURCE     SHA-256       ITEM"))
	for _, it := range v.Items {
		for _, d := range it.SHA256 {
			t.line("%3d  %-9s  %s  %s", it.PCR, "agent", pad(short(d), 12), clean(it.Name))
		}
	}
	for _, e := range v.Firmware {
		t.line("%3d  %-9s  %s  %s", e.PCR, clean(e.Source), pad(short(e.Digests["sha256"]), 12), clean(e.Name))
	}
}

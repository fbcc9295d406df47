package main

import (
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/spf13/cobra"

	"waxseal/measure/manifest"
	"waxseal/measure/manifest/sealed"
)

func (a *app) manifest() *cobra.Command {
	return a.group("manifest", "Shipment manifests", a.manifestShow())
}

func (a *app) manifestShow() *cobra.Command {
	var vendor string
	format := tableFormat
	c := &cobra.Command{
		Use: "show FILE", Short: "Verify a shipment manifest and show what it says",
		Long: "Shows a manifest only if both of the maker's signatures are good; if not, the exit code is 3.",
		Args: args("FILE, the manifest"),
	}
	c.Flags().StringVar(&vendor, "vendor-sign", "", "`FILE` of the maker's two public keys, vendor-sign.pem")
	c.Flags().VarP(&format, "output", "o", "table or json")
	c.RunE = func(c *cobra.Command, args []string) error {
		if err := need(c, "vendor-sign"); err != nil {
			return err
		}
		trust, err := readVendorSign(vendor)
		if err != nil {
			return fmt.Errorf("--vendor-sign: %w", err)
		}
		file, err := readFile(args[0], sealed.MaxFile)
		if err != nil {
			return err
		}
		s, err := manifest.Open(file, trust)
		if errors.Is(err, sealed.ErrSignature) || errors.Is(err, sealed.ErrAlgorithm) {
			fmt.Fprintf(a.stdout, "REFUSED: %s\n", clean(err.Error()))
			return exitCode(exitFailed)
		}
		if err != nil {
			return fmt.Errorf("%s: %w", args[0], err)
		}
		return a.showManifest(s, trust, format)
	}
	return c
}

// readVendorSign reads a maker's public keys.
func readVendorSign(path string) (sealed.Trust, error) {
	b, err := readFile(path, sealed.MaxKeyFile)
	if err != nil {
		return sealed.Trust{}, err
	}
	trust, err := sealed.ParseTrust(b)
	if err != nil {
		return sealed.Trust{}, fmt.Errorf("%s: %w", path, err)
	}
	return trust, nil
}

func (a *app) showManifest(s manifest.Shipment, trust sealed.Trust, format outputFormat) error {
	if format == jsonFormat {
		b, err := s.Encode()
		if err != nil {
			return err
		}
		_, err = a.stdout.Write(b)
		return err
	}
	signer, err := trust.Fingerprint()
	if err != nil {
		return err
	}
	t := table{paint: paintFor(a.stdout)}
	t.shipment(s, signer)
	_, err = io.WriteString(a.stdout, t.String())
	return err
}

func (t *table) shipment(s manifest.Shipment, signer string) {
	t.line("SIGNED: %s, %s by %s", clean(s.Serial), clean(s.Product), clean(s.Maker))
	t.line("")
	t.line("order       %s", clean(s.Order))
	t.line("packed      %s", s.Packed.Format(time.RFC3339))
	t.line("tape        %s", clean(s.SealID))
	t.line("resets      %d at packing, at most %d more until the check", s.Counters.Resets, s.MaxResets)
	t.line("reference   SHA-256 %s%s", hex.EncodeToString(s.ReferenceSHA256), whether(s.Reference != nil, ", in the manifest", ", to be had elsewhere"))
	t.line("signed by   %s", signer)
	t.line("")
	t.line("%s", t.paint(dim, "KEY     TPM NAME"))
	t.key("EK", s.EK.Name)
	if s.EKP384 != nil {
		t.key("EK384", s.EKP384.Name)
	}
	t.key("IAK", s.IAK.Name)
	t.key("IDevID", s.IDevID.Name)
	if s.SRK != nil {
		t.key("SRK", s.SRK.Name)
	}
}

func (t *table) key(name string, tpmName manifest.Hex) {
	t.line("%s  %s", pad(name, 6), hex.EncodeToString(tpmName))
}

func whether(yes bool, a, b string) string {
	if yes {
		return a
	}
	return b
}

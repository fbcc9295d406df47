package main

import (
	"errors"
	"fmt"
	"io/fs"
	"time"

	"github.com/spf13/cobra"

	"waxseal/fleet/appraise"
	"waxseal/fleet/challenge"
	"waxseal/fleet/enroll"
	"waxseal/measure"
	"waxseal/measure/evidence"
	"waxseal/measure/reference"
)

func (a *app) evidence() *cobra.Command {
	return a.group("evidence", "Evidence files", a.evidenceVerify(), a.evidenceExport())
}

func (a *app) evidenceVerify() *cobra.Command {
	var ref, trust, serial, at string
	format := tableFormat
	c := &cobra.Command{
		Use: "verify FILE", Short: "Verify and judge a saved evidence file, without network or server",
		Long: "Verifies evidence that 'waxseal attest --save' has written, and judges it by reference values. Whether it was fresh\n" +
			"when it was taken only its seal (FILE.seal) can say: a file that is not the one that was sealed is refused.\n\n" + exitHelp,
		Args: args("FILE, the evidence"),
	}
	c.Flags().StringVar(&ref, "reference", "", "`FILE` of reference values")
	c.Flags().StringVar(&trust, "trust", "", "PEM `FILE` with the owner's CA certificate")
	c.Flags().StringVar(&serial, "serial", "", "serial number that the router must have (default: any)")
	c.Flags().StringVar(&at, "at", "", "judge the certificates at this `TIME` (RFC 3339; default: now)")
	c.Flags().VarP(&format, "output", "o", "table or json")
	c.RunE = func(c *cobra.Command, args []string) error {
		if err := need(c, "trust"); err != nil {
			return err
		}
		now, err := a.moment(c, at)
		if err != nil {
			return err
		}
		roots, err := enroll.ReadCertificates(trust)
		if err != nil {
			return fmt.Errorf("--trust: %w", err)
		}
		values, err := readReference(ref)
		if err != nil {
			return err
		}
		r, err := offline(args[0], values, evidence.Trust{Roots: roots, Serial: serial, Now: now})
		if err != nil {
			return err
		}
		return a.show(format, r)
	}
	return c
}

func (a *app) moment(c *cobra.Command, at string) (time.Time, error) {
	if at == "" {
		return a.now(), nil
	}
	t, err := time.Parse(time.RFC3339, at)
	if err != nil {
		return t, usageError{c.CommandPath(), fmt.Errorf("--at: %q is no time such as 2026-07-01T12:00:00Z", at)}
	}
	return t, nil
}

// offline judges an evidence file: its seal, if there is one, then what is in
// it.
func offline(path string, ref *reference.Values, trust evidence.Trust) (challenge.Result, error) {
	text, err := readFile(path, evidence.MaxFile)
	if err != nil {
		return challenge.Result{}, err
	}
	ev, err := evidence.Parse(text)
	if err != nil {
		return challenge.Result{}, fmt.Errorf("%s: %w", path, err)
	}
	note, err := checkSeal(path, text, trust)
	if errors.Is(err, challenge.ErrSeal) {
		return challenge.RefusedResult(err), nil
	}
	if err != nil {
		return challenge.Result{}, err
	}
	r := judge(ev, ref, trust)
	r.Notes = append(r.Notes, note)
	return r, nil
}

// checkSeal says what the seal beside an evidence file adds to it.
func checkSeal(path string, text []byte, trust evidence.Trust) (note string, err error) {
	seal, err := readFile(path+sealSuffix, challenge.MaxSeal)
	if errors.Is(err, fs.ErrNotExist) {
		return "without " + path + sealSuffix + " it is not known when the router answered, nor whether it was asked: the evidence may be old", nil
	}
	if err != nil {
		return "", err
	}
	verifier, err := challenge.CheckSeal(text, seal, trust.Roots, trust.Now)
	if err != nil {
		return "", err
	}
	return "sealed by " + evidence.Escape(verifier.Subject.String()) + ", which drew the nonce and received the answer in time", nil
}

// judge judges evidence by itself: the challenge is taken from it.
func judge(ev evidence.Evidence, ref *reference.Values, trust evidence.Trust) challenge.Result {
	ch := ev.Offline()
	if ref != nil {
		ch.Profile, _ = measure.ParseProfile(ref.Profile) // reference.Parse has checked it
	}
	v, err := evidence.Verify(ev, ch, trust)
	if err != nil {
		return challenge.RefusedResult(err)
	}
	r := challenge.Judge(v, ref, appraise.DefaultPolicy)
	r.Evidence, r.Challenge = &ev, ch
	return r
}

package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/spf13/cobra"

	"waxseal/fleet/enroll"
	"waxseal/hw/tpm"
	"waxseal/images"
	"waxseal/images/factory"
	"waxseal/images/vm"
	"waxseal/measure/evidence"
)

func factoryCommand() *cobra.Command {
	var caDir, serial string
	cmd := &cobra.Command{
		Use:   "factory STATE --ca DIR --serial SERIAL",
		Short: "Make a unit's TPM, its IAK and IDevID, and certify them with the vendor CA of the lab",
		Args:  cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			ca, err := factory.OpenOrMakeCA(caDir, time.Now())
			if err != nil {
				return err
			}
			return ca.WithTPM(cmd.Context(), filepath.Join(args[0], "tpm"), serial, func(dev *tpm.Device) error {
				r, err := factory.Provision(cmd.Context(), dev, ca, serial)
				if err != nil {
					return err
				}
				fmt.Fprintf(cmd.OutOrStdout(), "%s: unit %s\n  EK     %s\n  IAK    %s\n  IDevID %s\n", args[0], r.Serial, r.EK.Name, r.IAK.Name, r.IDevID.Name)
				return nil
			})
		},
	}
	cmd.Flags().StringVar(&caDir, "ca", "", "folder of the vendor CA; it is made where there is none")
	cmd.Flags().StringVar(&serial, "serial", "WX-0001", "the unit's serial number")
	cmd.MarkFlagRequired("ca")
	return cmd
}

func learnCommand() *cobra.Command {
	var file, trust string
	cmd := &cobra.Command{
		Use:   "learn DIR --evidence FILE --trust CA.pem",
		Short: "Record the firmware's own events (PCR 0-3, 5-7) of a golden boot, from its evidence",
		Args:  cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			v, err := verified(file, trust)
			if err != nil {
				return err
			}
			if err := images.Learn(args[0], v.Firmware()); err != nil {
				return err
			}
			fmt.Fprintf(cmd.OutOrStdout(), "%s: recorded from unit %s\n", filepath.Join(args[0], images.FirmwareFile), v.Serial())
			return nil
		},
	}
	cmd.Flags().StringVar(&file, "evidence", "", "evidence of the golden boot, saved by waxseal attest --save")
	cmd.Flags().StringVar(&trust, "trust", "", "PEM file with the owner's trust anchors")
	cmd.MarkFlagRequired("evidence")
	cmd.MarkFlagRequired("trust")
	return cmd
}

// verified reads evidence and proves that it is genuine.
func verified(file, trust string) (evidence.Verified, error) {
	b, err := os.ReadFile(file)
	if err != nil {
		return evidence.Verified{}, err
	}
	ev, err := evidence.Parse(b)
	if err != nil {
		return evidence.Verified{}, fmt.Errorf("%s: %w", file, err)
	}
	roots, err := enroll.ReadCertificates(trust)
	if err != nil {
		return evidence.Verified{}, err
	}
	v, err := evidence.Verify(ev, ev.Offline(), evidence.Trust{Roots: roots, Now: ev.Received})
	if err != nil {
		return v, fmt.Errorf("%s: %w", file, err)
	}
	return v, nil
}

func runCommand() *cobra.Command {
	var c vm.Config
	var quiet bool
	cmd := &cobra.Command{
		Use:   "run DIR --tpm STATE",
		Short: "Boot an image under QEMU until it ends or is interrupted; the guest's console goes to standard output",
		Args:  cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			c.Dir = args[0]
			if !quiet {
				c.Console = cmd.OutOrStdout()
			}
			return runRouter(cmd.Context(), c, cmd)
		},
	}
	f := cmd.Flags()
	f.StringVar(&c.State, "tpm", "", "folder of the unit: its TPM and its firmware's variables")
	f.BoolVar(&c.NoTPM, "no-tpm", false, "a board without a TPM")
	f.IntVar(&c.Forward, "forward", 0, "port on 127.0.0.1 that leads to the agent; 0: a free one")
	f.IntVar(&c.RESTCONF, "forward-restconf", 0, "port on 127.0.0.1 that leads to the agent's RESTCONF; 0: none does")
	f.StringVar(&c.Serial, "serial", "WX-0001", "the unit's serial number")
	f.BoolVar(&c.Direct, "direct", false, "start kernel and initramfs without firmware")
	f.BoolVar(&quiet, "quiet", false, "do not show the console")
	cmd.MarkFlagRequired("tpm")
	return cmd
}

func runRouter(ctx context.Context, c vm.Config, cmd *cobra.Command) error {
	v, err := vm.Start(ctx, c)
	if err != nil {
		return err
	}
	fmt.Fprintf(cmd.ErrOrStderr(), "agent at %s\n", v.Address)
	defer v.Stop()
	select {
	case <-v.Done():
		return v.Err()
	case <-ctx.Done():
		return nil
	}
}

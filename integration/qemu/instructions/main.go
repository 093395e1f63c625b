//go:build linux

// Command instructions prints what a connection costs, in instructions of the
// kernel: routed directly, by a hand-written rule, by nlb, iptables and IPVS.
//
//	integration/qemu/fetch.sh CACHE 6.1 bench
//	go run ./integration/qemu/instructions -cache CACHE -kernel 6.1
//
// It boots one emulated machine whose clock counts instructions, so that the
// figures repeat whatever else this machine does. They show no effects of
// caches, locks or network cards.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"time"

	"nlb/integration/netlab"
	"nlb/integration/qemu"
	"nlb/integration/scenario"
)

func main() {
	dir, _ := os.UserCacheDir()
	cache := flag.String("cache", filepath.Join(dir, "nlb-lab"), "the folder that fetch.sh filled")
	kernel := flag.String("kernel", "6.1", "the version of the kernel")
	flag.Parse()
	err := netlab.Isolate()
	if err == nil {
		ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
		defer stop()
		err = run(ctx, *cache, *kernel)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "instructions:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, cache, kernel string) (err error) {
	dir, err := os.MkdirTemp("", "nlb-instructions-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	programs := map[string]string{}
	for to, command := range map[string]string{"usr/sbin/nlb": "./cmd/nlb", "usr/sbin/cost": "./integration/qemu/cost"} {
		if programs[to], err = scenario.Build(".", dir, command); err != nil {
			return err
		}
	}
	image, err := qemu.Build(cache, dir, kernel, qemu.Contents{Programs: programs, Extra: []string{"bench"}})
	if err != nil {
		return err
	}
	w, err := netlab.New()
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, w.Close()) }()
	h, err := w.Host("bench")
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, 10*time.Minute)
	defer cancel()
	begin := time.Now()
	table, err := qemu.Count(ctx, h, image, dir, "/usr/sbin/cost")
	if err != nil {
		return err
	}
	fmt.Printf("Linux %s, instructions: median of 9 rounds, after one that is dropped; half of them are as near to it as the brackets say.\n\n%s\n", image.Release, table)
	fmt.Printf("Instructions of an emulated processor, client and server included: no effects of caches, locks or network cards.\nIt took %s.\n",
		time.Since(begin).Round(time.Second))
	return nil
}

//go:build linux

// Package agent keeps the kernel true: it reads profiles again when their files
// change, and obeys the orders of admins. It can end at any moment: the kernel
// balances on.
package agent

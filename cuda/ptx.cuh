/* SPDX-License-Identifier: MIT */
/* PTX instructions that CUDA C++ offers no function for, or compiles less well: all inline assembly is here. */
#ifndef WCX_PTX_CUH
#define WCX_PTX_CUH

#include <cuda_runtime.h>
#include <stdint.h>

/* --- Logic and arithmetic --- */

static __device__ __forceinline__ uint32_t wcx_select_bits(uint32_t mask, uint32_t ones, uint32_t zeros)
{
	uint32_t value;

	asm("lop3.b32 %0, %1, %2, %3, 0xCA;" : "=r"(value) : "r"(mask), "r"(ones), "r"(zeros));
	return value;
}

/* (value & mask) | bits */
template <uint32_t mask> static __device__ __forceinline__ uint32_t wcx_mask_or(uint32_t value, uint32_t bits)
{
	uint32_t ret;

	asm("lop3.b32 %0, %1, %2, %3, 0xEA;" : "=r"(ret) : "r"(value), "n"(mask), "r"(bits));
	return ret;
}

/* Sets all bits of each byte to its highest bit.  __byte_perm lacks this mode. */
static __device__ __forceinline__ uint32_t wcx_spread_signs(uint32_t word)
{
	uint32_t spread;

	asm("prmt.b32 %0, %1, %1, 0xBA98;" : "=r"(spread) : "r"(word));
	return spread;
}

/* The same for the two halves of a word. */
static __device__ __forceinline__ uint32_t wcx_spread_half_signs(uint32_t word)
{
	uint32_t spread;

	asm("prmt.b32 %0, %1, %1, 0xBB99;" : "=r"(spread) : "r"(word));
	return spread;
}

/* The highest bytes of two words, with their signs, as the halves of a word. */
static __device__ __forceinline__ uint32_t wcx_signed_top_bytes(uint32_t low, uint32_t high)
{
	uint32_t halves;

	asm("prmt.b32 %0, %1, %2, 0xF7B3;" : "=r"(halves) : "r"(low), "r"(high));
	return halves;
}

/* The upper half of a 64-bit product.  __umulhi takes one instruction more. */
static __device__ __forceinline__ uint32_t wcx_multiply_high(uint32_t a, uint32_t b)
{
	uint32_t high;

	asm volatile("{\n\t.reg .u32 low;\n\t.reg .u64 product;\n\t"
		     "mul.wide.u32 product, %1, %2;\n\tmov.b64 {low, %0}, product;\n\t}"
		     : "=r"(high)
		     : "r"(a), "r"(b));
	return high;
}

/* Makes the compiler keep a value in a register instead of computing it again at each use. */
static __device__ __forceinline__ void wcx_keep(uint32_t *value)
{
	asm volatile("" : "+r"(*value));
}

/* --- Memory --- */

/* A value that other blocks change with atomics meanwhile. */
static __device__ __forceinline__ int wcx_load_relaxed(const int *global)
{
	int value;

	asm volatile("ld.relaxed.sys.global.s32 %0, [%1];" : "=r"(value) : "l"(__cvta_generic_to_global(global)) : "memory");
	return value;
}

/* Shared memory is addressed with 32 bits: from pointers the compiler makes one or two more instructions in each step. */
static __device__ __forceinline__ uint32_t wcx_shared_address(const void *p)
{
	return (uint32_t)__cvta_generic_to_shared(p);
}

static __device__ __forceinline__ uint32_t wcx_shared_u16(uint32_t address)
{
	uint16_t value;

	asm volatile("ld.shared.u16 %0, [%1];" : "=h"(value) : "r"(address) : "memory");
	return value;
}

static __device__ __forceinline__ uint32_t wcx_shared_u32(uint32_t address)
{
	uint32_t value;

	asm volatile("ld.volatile.shared.u32 %0, [%1];" : "=r"(value) : "r"(address) : "memory");
	return value;
}

static __device__ __forceinline__ uint2 wcx_shared_u64(uint32_t address)
{
	uint2 value;

	asm volatile("ld.shared.v2.u32 {%0, %1}, [%2];" : "=r"(value.x), "=r"(value.y) : "r"(address) : "memory");
	return value;
}

/* The address is a multiple of 8. */
static __device__ __forceinline__ void wcx_shared_store_u64(uint32_t address, uint32_t low, uint32_t high)
{
	asm volatile("st.shared.v2.u32 [%0], {%1, %2};" ::"r"(address), "r"(low), "r"(high) : "memory");
}

/* Starts to copy 16 bytes of device memory to shared memory; wcx_copies_wait waits for all copies of the warp. */
static __device__ __forceinline__ void wcx_copy_start(uint32_t shared, const uint8_t *global)
{
	asm volatile("cp.async.cg.shared.global [%0], [%1], 16;" ::"r"(shared), "l"(global) : "memory");
}

static __device__ __forceinline__ void wcx_copies_wait(void)
{
	asm volatile("cp.async.wait_all;" ::: "memory");
	__syncwarp();
}

/* --- Launches of a batch overlap (programmatic dependent launch) --- */

/* Lets the next launch start once every block of this one has called it. */
static __device__ __forceinline__ void wcx_let_next_launch_start(void)
{
#if __CUDA_ARCH__ >= 900
	asm volatile("griddepcontrol.launch_dependents;" ::: "memory");
#endif
}

/* Waits until all earlier launches have completed. */
static __device__ __forceinline__ void wcx_wait_for_last_launch(void)
{
#if __CUDA_ARCH__ >= 900
	asm volatile("griddepcontrol.wait;" ::: "memory");
#endif
}

#endif

"""ViT and Swin with Tsetlin machines (or an MLP) in the place of the feed-forward layers, and diagnostic heads.

ViT: Dosovitskiy et al. 2021, "An Image is Worth 16x16 Words"; Swin: Liu et al. 2021, "Swin Transformer", here without
relative position bias. LayerScale: Touvron et al. 2021, "Going deeper with Image Transformers", equation 4.

Each attention head has a gain, 1 without specialisation. With a strength s in 0..1 it follows how much the clauses of
the block make of the head:

    gain = (1 - s) + s * usage of the head / mean usage of the layer's heads

The usage of a head is the running mean of how far what it gives, averaged over the tokens, moves the features of the
Tsetlin machine. A feature counts as often as clauses read it, each clause by how much it varies (its standard
deviation over training inputs). Without a machine it is the mean size of what the head gives. Usage is kept with the
weights, so that a loaded, resumed or exported model has the gains it was trained with.

Legend: R rows, N tokens, D width, H heads, S side of the picture in pixels.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from sharpstudent.tasks.tokens.clauses import FuzzyPatternTM, Literals, TMFeedForward, UsageMeter

Backend = Literal["ste", "deeptm", "mlp", "none"]
TM_SCALE = {"single": 1.0, "binary": 1.0, "soft": 1e-4}  # LayerScale of the machine at the start


class HeadAttention(nn.Module):
    """Self-attention (R, N, D) -> (R, N, D) whose heads have gains; windows of Swin are rows of their own."""

    def __init__(self, width: int, heads: int, strength: float) -> None:
        super().__init__()
        self.heads, self.strength = heads, strength
        self.qkv = nn.Linear(width, 3 * width)
        self.proj = nn.Linear(width, width)
        self.usage = UsageMeter(heads)

    @property
    def gains(self) -> Tensor:
        """The gain of each head (H,)."""
        usage = self.usage.running_mean
        return (1.0 - self.strength) + self.strength * usage / usage.mean()

    def forward(self, tokens: Tensor, reader: TMFeedForward | None = None) -> tuple[Tensor, Tensor]:
        """Attend.

        Args:
            tokens: (R, N, D).
            reader: The layer whose clauses say how much a head is used; None where the block has none.

        Returns:
            The update of the tokens, and the mean over the tokens of what each head gives (R, H, D / H).
        """
        rows, count, width = tokens.shape
        qkv = self.qkv(tokens).reshape(rows, count, 3, self.heads, width // self.heads).permute(2, 0, 3, 1, 4)
        context = F.scaled_dot_product_attention(qkv[0], qkv[1], qkv[2])
        if self.usage.is_counting:
            self.usage(self._measure(context.detach(), reader))
        context = context * self.gains[:, None, None]
        return self.proj(context.transpose(1, 2).reshape(rows, count, width)), context.mean(2)

    @torch.no_grad()
    def _measure(self, context: Tensor, reader: TMFeedForward | None) -> Tensor:
        """Measure how much each head (R, H) is used, from what it gives (R, H, N, D / H)."""
        if reader is None:
            return context.abs().mean((2, 3))
        per_head = self.proj.weight.unflatten(1, (self.heads, -1)).permute(1, 0, 2)  # (H, D, D / H)
        moves = reader.weigh_tokens() @ per_head  # (H, F, D / H)
        return torch.einsum("hfd,rhd->rhf", moves, context.mean(2)).abs().mean(2)


class Passed(NamedTuple):
    """What a block computes on its way.

    Attributes:
        attended: The tokens after attention (R, N, D).
        heads: The mean over the tokens of what each head gives (R, H, D / H).
        clauses: The clauses (R, N, C); None without a Tsetlin machine.
    """

    attended: Tensor
    heads: Tensor
    clauses: Tensor | None


class TokenBlock(nn.Module):
    """Attention, then a feed-forward layer, each with norm, LayerScale and residual."""

    def __init__(
        self, width: int, heads: int, hidden: int, clauses: int, options: BlockOptions, window: int = 0, shift: int = 0
    ) -> None:
        super().__init__()
        self.window, self.shift = window, shift
        self.norm1 = nn.LayerNorm(width)
        self.attention = HeadAttention(width, heads, options.strength)
        self.norm2 = nn.LayerNorm(width)
        self.feed_forward = _build_feed_forward(width, hidden, clauses, options)
        self.scale1 = nn.Parameter(torch.full((width,), options.attention_scale))
        self.scale2 = nn.Parameter(torch.full((width,), TM_SCALE[options.literals] if options.is_tm else 1.0))

    @property
    def machine(self) -> TMFeedForward | None:
        """The feed-forward layer, where it is a Tsetlin machine."""
        return self.feed_forward if isinstance(self.feed_forward, TMFeedForward) else None

    def forward(self, tokens: Tensor) -> tuple[Tensor, Passed]:
        """Update tokens (R, N, D)."""
        given, heads = self._attend(self.norm1(tokens))
        attended = tokens + self.scale1 * given
        if self.feed_forward is None:
            return attended, Passed(attended, heads, None)
        update = self.feed_forward(self.norm2(attended))
        update, clauses = update if isinstance(update, tuple) else (update, None)
        return attended + self.scale2 * update, Passed(attended, heads, clauses)

    def _attend(self, tokens: Tensor) -> tuple[Tensor, Tensor]:
        if not self.window:
            return self.attention(tokens, self.machine)
        rows, count, width = tokens.shape
        side, window = int(count**0.5), self.window
        grid = tokens.reshape(rows, side, side, width)
        grid = torch.roll(grid, (-self.shift, -self.shift), (1, 2)) if self.shift else grid
        parts = grid.reshape(rows, side // window, window, side // window, window, width).transpose(2, 3)
        given, heads = self.attention(parts.reshape(-1, window * window, width), self.machine)
        grid = given.reshape(rows, side // window, side // window, window, window, width).transpose(2, 3)
        grid = grid.reshape(rows, side, side, width)
        grid = torch.roll(grid, (self.shift, self.shift), (1, 2)) if self.shift else grid
        return grid.reshape(rows, count, width), heads.reshape(rows, -1, *heads.shape[1:]).mean(1)


class BlockOptions:
    """What all blocks of a model share."""

    def __init__(
        self, backend: Backend, literals: Literals, strength: float, dropout: float, attention_scale: float
    ) -> None:
        self.backend: Backend = backend
        self.literals: Literals = literals
        self.strength, self.dropout, self.attention_scale = strength, dropout, attention_scale
        self.is_tm = backend in ("ste", "deeptm")


def _build_feed_forward(width: int, hidden: int, clauses: int, options: BlockOptions) -> nn.Module | None:
    if options.backend == "none":
        return None
    if options.backend == "mlp":
        parts = nn.Linear(width, hidden), nn.GELU(), nn.Dropout(options.dropout), nn.Linear(hidden, width)
        return nn.Sequential(*parts)
    return TMFeedForward(
        width, hidden, clauses, backend=options.backend, literals=options.literals, dropout=options.dropout
    )


class PatchMerge(nn.Module):
    """Four neighbouring tokens become one: (R, N, D) -> (R, N / 4, E)."""

    def __init__(self, width: int, wider: int) -> None:
        super().__init__()
        self.reduction = nn.Linear(4 * width, wider, bias=False)
        self.norm = nn.LayerNorm(wider)

    def forward(self, tokens: Tensor) -> Tensor:
        """Merge."""
        rows, count, width = tokens.shape
        side = int(count**0.5)
        grid = tokens.reshape(rows, side // 2, 2, side // 2, 2, width).transpose(2, 3)
        return self.norm(self.reduction(grid.reshape(rows, count // 4, 4 * width)))


class UnifiedTMTransformer(nn.Module):
    """`image` (R, channels, S, S) -> `logits` (R, classes) and what the terms of the loss read.

    Further outputs: `embedding` (R, D), what the head reads; `clauses` (R, all clauses), the mean over the tokens of
    each clause (models with a Tsetlin machine); `aux.NAME` (R, classes), the diagnostic heads.
    """

    def __init__(
        self,
        *,
        architecture: Literal["vit", "swin"] = "vit",
        backend: Backend = "ste",
        num_classes: int = 10,
        image_size: int = 28,
        in_channels: int = 1,
        patch_size: int = 4,
        embed_dim: Sequence[int] = (64,),
        depths: Sequence[int] = (1,),
        num_heads: Sequence[int] = (4,),
        mlp_ratio: Sequence[float] = (3.0,),
        clauses: int = 192,
        window_size: int = 4,
        pool: Literal["mean", "class"] = "mean",
        literals: Literals = "binary",
        clause_specialize: float = 0.0,
        freeze_clauses: bool = False,
        attention_scale: float = 1.0,
        position_deviation: float = 0.02,
        dropout: float = 0.0,
    ) -> None:
        """Build the model; the keys are kept in a checkpoint of the command-line translator as `model_kwargs`.

        Args:
            architecture: `vit`: one stage, a class token and learned positions; `swin`: stages with windows.
            backend: The feed-forward layers: a machine, a machine of two layers, an MLP, or none at all.
            num_classes: Classes.
            image_size: S; the patch size divides it.
            in_channels: Channels of a picture.
            patch_size: Side of a patch in pixels.
            embed_dim: D of each stage.
            depths: Blocks of each stage.
            num_heads: Attention heads of each stage.
            mlp_ratio: Width of the hidden layer of each stage, in units of D; one number serves all stages.
            clauses: Clauses of each machine, divisible by two.
            window_size: Side of a window in tokens (swin).
            pool: What the head of a ViT reads: the mean of all tokens, or the class token.
            literals: See `FuzzyPatternTM`.
            clause_specialize: s, 0..1: how far attention heads are reweighted by their use.
            freeze_clauses: Whether the masks keep their random start, as a control.
            attention_scale: LayerScale of attention at the start. Below 1, the feed-forward layers learn before
                attention, pooled over the tokens, has done their work.
            position_deviation: Standard deviation of the positions at the start (vit).
            dropout: Dropout rate of the feed-forward layers.

        Raises:
            ValueError: For sizes that do not fit together.
        """
        super().__init__()
        sizes = (image_size, patch_size, embed_dim, depths, num_heads, mlp_ratio, window_size)
        check_sizes(architecture, *sizes)
        self.architecture, self.pool = architecture, pool
        options = BlockOptions(backend, literals, clause_specialize, dropout, attention_scale)
        grid, first = image_size // patch_size, embed_dim[0]
        self.patch_embed = nn.Conv2d(in_channels, first, patch_size, patch_size)
        self.patch_norm = nn.LayerNorm(first)
        if architecture == "vit":
            self.class_token = nn.Parameter(torch.zeros(1, 1, first))
            self.positions = nn.Parameter(torch.empty(1, grid * grid + 1, first).normal_(0.0, position_deviation))
        ratios = list(mlp_ratio) * len(depths) if len(mlp_ratio) == 1 else list(mlp_ratio)
        self.blocks, self.merges, self.aux = nn.ModuleList(), nn.ModuleDict(), nn.ModuleDict()
        self.aux["patch"] = nn.Linear(first, num_classes)
        for stage, (width, depth, heads) in enumerate(zip(embed_dim, depths, num_heads, strict=True)):
            if stage:
                self.merges[str(len(self.blocks))] = PatchMerge(embed_dim[stage - 1], width)
                self.aux[f"merge_{stage}"] = nn.Linear(width, num_classes)
                grid //= 2
            window = min(window_size, grid) if architecture == "swin" else 0
            for number in range(depth):
                shift = window // 2 if number % 2 and window < grid else 0
                self._add_block(width, heads, int(width * ratios[stage]), clauses, options, window, shift, num_classes)
        self.norm = nn.LayerNorm(embed_dim[-1])
        self.head = nn.Linear(embed_dim[-1], num_classes)
        if freeze_clauses:
            for name, parameter in self.named_parameters():
                parameter.requires_grad_(".ta_" not in name)

    def _add_block(
        self,
        width: int,
        heads: int,
        hidden: int,
        clauses: int,
        options: BlockOptions,
        window: int,
        shift: int,
        classes: int,
    ) -> None:
        name = str(len(self.blocks))
        self.blocks.append(TokenBlock(width, heads, hidden, clauses, options, window, shift))
        self.aux[f"attention_{name}"] = nn.Linear(width, classes)
        self.aux[f"feed_forward_{name}"] = nn.Linear(width, classes)
        self.aux[f"heads_{name}"] = nn.ModuleList(nn.Linear(width // heads, classes) for _ in range(heads))

    @property
    def machines(self) -> list[FuzzyPatternTM]:
        """The Tsetlin machines, from the first block on."""
        return [module for module in self.modules() if isinstance(module, FuzzyPatternTM)]

    def remove_machines(self) -> None:
        """Take the Tsetlin machines out: the blocks keep their attention alone, to see what the machines are worth."""
        for block in self.blocks:
            if block.machine is not None:
                block.feed_forward = None  # type: ignore[assignment]

    @torch.no_grad()
    def describe_usage(self) -> dict[str, float]:
        """Describe how much clauses and attention heads are used, from their running statistics.

        Returns:
            `dead_clauses` (with a machine): how many clauses hardly vary. For each head, `use_BLOCK_HEAD_before` and
            `use_BLOCK_HEAD_after`: its usage over the mean of its block, before and after its gain.
        """
        found: dict[str, float] = {}
        if self.machines:
            found["dead_clauses"] = float(sum(machine.count_dead() for machine in self.machines))
        for number, block in enumerate(self.blocks):
            attention = block.attention
            assert isinstance(attention, HeadAttention)
            usage, gains = attention.usage.running_mean, attention.gains
            before = usage / usage.mean()
            for when, values in (("before", before), ("after", before * gains / (before * gains).mean())):
                found |= {f"use_{number}_{head}_{when}": float(value) for head, value in enumerate(values)}
        return found

    def forward(self, image: Tensor) -> dict[str, Tensor]:
        """Classify pictures."""
        tokens = self.patch_norm(self.patch_embed(image).flatten(2).transpose(1, 2))
        if self.architecture == "vit":
            tokens = torch.cat([self.class_token.expand(tokens.shape[0], -1, -1), tokens], 1) + self.positions
        aux = {"patch": self.aux["patch"](tokens.mean(1))}
        clauses: list[Tensor] = []
        for number, block in enumerate(self.blocks):
            if str(number) in self.merges:
                tokens = self.merges[str(number)](tokens)
                name = f"merge_{len([key for key in self.merges if int(key) <= number])}"
                aux[name] = self.aux[name](tokens.mean(1))
            tokens, passed = block(tokens)
            aux[f"attention_{number}"] = self.aux[f"attention_{number}"](passed.attended.mean(1))
            aux[f"feed_forward_{number}"] = self.aux[f"feed_forward_{number}"](tokens.mean(1))
            for place, head in enumerate(self.aux[f"heads_{number}"]):  # type: ignore[arg-type]
                aux[f"heads_{number}_{place}"] = head(passed.heads[:, place])
            if passed.clauses is not None:
                clauses.append(passed.clauses.mean(1))
        tokens = self.norm(tokens)
        embedding = tokens[:, 0] if self.architecture == "vit" and self.pool == "class" else tokens.mean(1)
        more = {"clauses": torch.cat(clauses, 1)} if clauses else {}
        named = {f"aux.{name}": value for name, value in aux.items()}
        return {"logits": self.head(embedding), "embedding": embedding, **more, **named}


def check_sizes(
    architecture: str,
    image_size: int,
    patch_size: int,
    embed_dim: Sequence[int],
    depths: Sequence[int],
    num_heads: Sequence[int],
    mlp_ratio: Sequence[float],
    window_size: int,
) -> None:
    """Check that the sizes of a model fit together; the arguments are those of `UnifiedTMTransformer`.

    Raises:
        ValueError: With what was expected, and what came.
    """
    if image_size % patch_size:
        raise ValueError(f"patch_size must divide image_size {image_size}, got {patch_size}")
    if len({len(embed_dim), len(depths), len(num_heads)}) > 1 or len(mlp_ratio) not in (1, len(depths)):
        given = f"{list(embed_dim)}, {list(depths)}, {list(num_heads)} and {list(mlp_ratio)}"
        raise ValueError(f"embed_dim, depths, num_heads and mlp_ratio need a value for each stage, got {given}")
    if architecture == "vit" and len(depths) != 1:
        raise ValueError(f"a vit has one stage: one value in embed_dim, depths and num_heads, got {len(depths)}")
    for width, heads in zip(embed_dim, num_heads, strict=True):
        if width % heads:
            raise ValueError(f"num_heads must divide embed_dim {width}, got {heads}")
    grid = image_size // patch_size
    for stage in range(len(depths) if architecture == "swin" else 0):
        side = grid // 2**stage
        if grid % 2**stage or side % min(window_size, side):
            raise ValueError(
                f"window_size must divide the grid of every stage; stage {stage + 1} has {grid / 2**stage:g} tokens a "
                f"side, got {window_size}"
            )

/* SPDX-License-Identifier: Apache-2.0 */
/* Which network a file holds when it is not the one wanted, told by names of tensors. */
#include "model/network.h"

#include <string.h>

static const char DETECTOR[] = "give it as --detector", SEGMENTER[] = "give it as --segmenter",
                  OTHER[] = "give a checkpoint of one of the networks in docs/MODELS.md",
                  WHOLE[] = "give the checkpoint of the whole network",
                  ORIGINAL[] = "give the checkpoint in upstream's own layout";

/* A name as it is, "begin*" or "*inside"; both must occur, `no` must not. The first row holds. */
static const struct row {
    const char *one, *two, *no, *what, *mend;
} ROWS[] = {
    {"decoder.up", "backbone.stem.stem1.conv.weight", NULL, "a D-FINE detector", DETECTOR},
    {"*lora_", NULL, "backbone.*", "low-rank additions (LoRA) to a network", WHOLE},
    {"sam_mask_decoder.*", NULL, NULL, "a SAM 2 segmenter", OTHER},
    {"image_encoder.trunk.*", NULL, NULL, "a SAM 2 segmenter", OTHER},
    {"vision_encoder.*", "mask_decoder.*", NULL, "a SAM in Hugging Face's layout", ORIGINAL},
    {"mask_decoder.hf_token.weight", NULL, NULL, "an HQ-SAM segmenter", OTHER},
    {"image_encoder.stages.*", "mask_decoder.*", NULL, "a SAM with another image encoder (EdgeSAM)",
     OTHER},
    {"image_encoder.features.*", "mask_decoder.*", NULL,
     "a SAM with another image encoder (RepViT-SAM)", OTHER},
    {"image_encoder.backbone.*", "mask_decoder.*", NULL,
     "a SAM with another image encoder (EfficientViT-SAM)", OTHER},
    {"image_encoder.*", "mask_decoder.*", "prompt_encoder.*", "a SAM without its prompt encoder",
     WHOLE},
    {"prompt_encoder.*", "mask_decoder.*", "image_encoder.*", "a SAM without its image encoder",
     WHOLE},
    {"image_encoder.patch_embed.*", "mask_decoder.iou_token.weight", NULL, "a SAM segmenter",
     SEGMENTER},
    {"image_encoder.*", "mask_decoder.*", NULL, "a SAM with another image encoder", OTHER},
    {"mask_decoder.*", NULL, NULL, "the mask decoder of a SAM alone", WHOLE},
    {"prompt_encoder.*", NULL, NULL, "the prompt encoder of a SAM alone", WHOLE},
    {"image_encoder.*", NULL, NULL, "the image encoder of a SAM alone", WHOLE},
    {"iou_token.weight", NULL, NULL, "the mask decoder of a SAM alone", WHOLE},
    {"pe_layer.positional_encoding_gaussian_matrix", NULL, NULL,
     "the prompt encoder of a SAM alone", WHOLE},
    {"patch_embed.seq.0.c.weight", NULL, NULL, "the TinyViT image encoder of a SAM alone", WHOLE},
    {"stem.stem1.conv.weight", NULL, NULL, "an HGNetV2 backbone alone", WHOLE},
    {"backbone.model.embedder.*", NULL, NULL, "a D-FINE of Hugging Face without its heads", WHOLE},
    {"backbone.stem.embedder.*", NULL, NULL, "an RT-DETR detector in Hugging Face's layout", OTHER},
    {"backbone.stem.stem1.conv.weight", NULL, "decoder.*", "a D-FINE without its decoder", WHOLE},
    {"decoder.dec_bbox_head.*", "decoder.up", "backbone.*", "a D-FINE without its backbone", WHOLE},
    {"decoder.enc_score_head.weight", NULL, "decoder.up", "an RT-DETR detector", OTHER},
    {"backbone.stem.stem1.conv.weight", "decoder.*", NULL, "a part of a D-FINE", WHOLE},
    {"decoder.up", "backbone.*", NULL, "a D-FINE with another backbone (DEIMv2)", OTHER},
    {"encoder.input_proj.*", NULL, "backbone.*", "the encoder of a D-FINE or RT-DETR alone", WHOLE},
    {"model.backbone.*", "model.decoder.*", NULL, "a detector in Hugging Face's layout", OTHER},
    {"transformer.level_embed", NULL, NULL, "a Deformable DETR or DINO detector", OTHER},
    {"query_embed.weight", "transformer.*", NULL, "a DETR detector", OTHER},
    {"refpoint_embed.weight", NULL, NULL, "an LW-DETR or RF-DETR detector", OTHER},
    {"model.0.conv.weight", NULL, NULL, "a YOLO network", OTHER},
    {"model.model.0.conv.weight", NULL, NULL, "a YOLO network", OTHER},
    {"backbone.backbone.stem.conv.conv.weight", NULL, NULL, "a YOLOX detector", OTHER},
    {"roi_heads.*", NULL, NULL, "a Faster or Mask R-CNN", OTHER},
    {"proposal_generator.*", NULL, NULL, "a detector of Detectron2", OTHER},
    {"head.classification_head.*", NULL, NULL, "a RetinaNet or SSD detector", OTHER},
    {"bbox_head.*", NULL, NULL, "a detector of MMDetection", OTHER},
    {"decode_head.*", NULL, NULL, "a segmenter of MMSegmentation", OTHER},
    {"segmentation_head.0.weight", NULL, NULL, "a U-Net of segmentation_models_pytorch", OTHER},
    {"*seg_layers.", NULL, NULL, "an nnU-Net", OTHER},
    {"*double_conv.", NULL, NULL, "a U-Net", OTHER},
    {"*diffusion_model.", NULL, NULL, "a diffusion model", OTHER},
    {"down_blocks.*", NULL, NULL, "a diffusion model", OTHER},
    {"visual.*", "token_embedding.weight", NULL, "a CLIP network", OTHER},
    {"text_model.*", "vision_model.*", NULL, "a CLIP network", OTHER},
    {"*embed_tokens.weight", NULL, NULL, "a language model", OTHER},
    {"*word_embeddings.weight", NULL, NULL, "a language model", OTHER},
    {"layer1.0.conv1.weight", NULL, NULL, "a ResNet", OTHER},
    {"backbone.layer1.0.conv1.weight", NULL, NULL, "a network with a ResNet", OTHER},
    {"features.0.weight", NULL, NULL, "an image classifier", OTHER},
    {"*relative_position_bias_table", NULL, NULL, "a Swin transformer", OTHER},
    {"blocks.0.attn.qkv.weight", NULL, NULL, "a vision transformer", OTHER},
    {"conv_stem.weight", NULL, NULL, "an image classifier", OTHER},
};

static bool fits(const char *name, const char *pattern)
{
    size_t n = strlen(pattern);
    if (pattern[0] == '*')
        return strstr(name, pattern + 1) != NULL;
    return pattern[n - 1] == '*' ? strncmp(name, pattern, n - 1) == 0 : strcmp(name, pattern) == 0;
}

static bool has(const um_weights *file, const char *pattern)
{
    for (int i = 0; i < um_weights_count(file); i++)
        if (fits(um_weights_at(file, i)->name, pattern))
            return true;
    return false;
}

um_status um_network_marks(const um_weights *file, const struct um_network_mark *mark, int n)
{
    for (int i = 0; i < n; i++)
        if (!um_weights_has(file, mark[i].beside))
            return UM_OK;
    for (int i = 0; i < n; i++) {
        const struct um_wtensor *t = um_weights_find(file, mark[i].name);
        if (!t)
            return um_fail(UM_EFORMAT, "%s: missing tensor %s, want one of %d dimensions; %s",
                           um_weights_path(file), mark[i].name, mark[i].rank, WHOLE);
        if (t->rank != mark[i].rank)
            return um_fail(UM_EFORMAT, "%s: tensor %s has %d dimensions, want %d; %s",
                           um_weights_path(file), mark[i].name, t->rank, mark[i].rank, WHOLE);
    }
    return UM_OK;
}

um_status um_network_refuse(const um_weights *file, const char *want)
{
    int n = um_weights_count(file);
    for (size_t i = 0; i < sizeof ROWS / sizeof *ROWS; i++) {
        const struct row *r = &ROWS[i];
        if (has(file, r->one) && (!r->two || has(file, r->two)) && (!r->no || !has(file, r->no)))
            return um_fail(UM_EFORMAT, "%s: %s, want %s; %s", um_weights_path(file), r->what, want,
                           r->mend);
    }
    if (n == 0)
        return um_fail(UM_EFORMAT, "%s: a file without tensors, want %s; %s", um_weights_path(file),
                       want, OTHER);
    return um_fail(UM_EFORMAT, "%s: an unknown network of %d tensors (%s, …), want %s; %s",
                   um_weights_path(file), n, um_weights_at(file, 0)->name, want, OTHER);
}
